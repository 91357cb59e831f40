#include <gtest/gtest.h>
#include <pty.h>
#include <unistd.h>

#include <cstdlib>

#include "merganser/base/progress.h"
#include "merganser/base/progress_text.h"

namespace merganser {
namespace {

ProgressState state(int64_t done, int64_t total, double seconds) {
  return {"train", "batches", "", done, total, 0, seconds};
}

TEST(ProgressText, Log) {
  EXPECT_EQ(
      progress_text(state(30, 120, 10), 0),
      "train  25% 30/120 batches, 3.00/s, 0:30 left");
  EXPECT_EQ(
      progress_text(state(120, 120, 90), 0),
      "train 100% 120/120 batches, 1.33/s, 1:30");
  EXPECT_EQ(
      progress_text(state(999, 1000, 1), 0),
      "train  99% 999/1000 batches, 999/s, 0:00 left");
  EXPECT_EQ(progress_text(state(0, 120, 0), 0), "train   0% 0/120 batches");
  EXPECT_EQ(progress_text(state(7, 0, 2), 0), "train 7 batches, 3.50/s, 0:02");
  EXPECT_EQ(
      progress_text(state(1, 100, 100), 0),
      "train   1% 1/100 batches, 0.01/s, 2:45:00 left");
}

TEST(ProgressText, RateExcludesResumedWork) {
  ProgressState resumed = state(130, 190, 10);
  resumed.first = 100;
  resumed.text = "loss 0.412";
  EXPECT_EQ(
      progress_text(resumed, 0),
      "train  68% 130/190 batches, 3.00/s, 0:20 left, loss 0.412");
}

TEST(ProgressText, Bytes) {
  ProgressState bytes = state(39'100'000, 90'900'000, 0.1);
  bytes.unit = "B";
  EXPECT_EQ(
      progress_text(bytes, 0), "train  43% 39.1/90.9 MB, 391 MB/s, 0:00 left");
  bytes.total = 2'000'000'000'000;
  EXPECT_EQ(
      progress_text(bytes, 0), "train   0% 0.0/2.0 TB, 391 MB/s, 1:25:15 left");
  bytes.done = 12;
  bytes.total = 999;
  EXPECT_EQ(progress_text(bytes, 0), "train   1% 12/999 B, 120 B/s, 0:08 left");
}

TEST(ProgressText, BarFitsTheTerminal) {
  EXPECT_EQ(
      progress_text(state(30, 120, 10), 60),
      "train  25% [===>         ] 30/120 batches, 3.00/s, 0:30 left");
  EXPECT_EQ(
      progress_text(state(120, 120, 60), 200),
      "train 100% [==============================] "
      "120/120 batches, 2.00/s, 1:00");
  ProgressState named = state(30, 120, 10);
  named.text = "caf\u00e9";
  for (int columns = 1; columns < 100; ++columns) {
    const std::string line = progress_text(named, columns);
    const auto continued = std::count_if(
        line.begin(), line.end(), [](char c) { return (c & 0xc0) == 0x80; });
    EXPECT_LE(line.size() - static_cast<size_t>(continued), columns);
  }
  EXPECT_TRUE(progress_text(named, 100).ends_with("caf\u00e9"));
}

TEST(ProgressBar, ShortWorkLeavesNoTraceInALog) {
  testing::internal::CaptureStderr();
  {
    ProgressBar bar("train", "batches", /*quiet=*/false);
    for (int i = 0; i <= 100; ++i) {
      bar.update(i, 100);
    }
  }
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

// The output of `work` on stderr if that is a terminal.
std::string on_terminal(void (*work)()) {
  int screen = -1;
  int terminal = -1;
  winsize size{24, 61, 0, 0};
  EXPECT_EQ(::openpty(&screen, &terminal, nullptr, nullptr, &size), 0);
  std::fflush(stderr);
  const int saved = ::dup(STDERR_FILENO);
  ::dup2(terminal, STDERR_FILENO);
  ::setenv("TERM", "xterm", 1);
  work();
  ::dup2(saved, STDERR_FILENO);
  ::close(saved);
  // A mark, so that reading ends even if nothing was written.
  EXPECT_EQ(::write(terminal, "$", 1), 1);
  std::string text;
  char buffer[4096];
  while (!text.ends_with('$')) {
    const ssize_t count = ::read(screen, buffer, sizeof(buffer));
    if (count <= 0) {
      break;
    }
    text.append(buffer, static_cast<size_t>(count));
  }
  ::close(terminal);
  ::close(screen);
  text.pop_back();
  return text;
}

TEST(ProgressBar, RedrawsItselfOnATerminal) {
  const std::string text = on_terminal([] {
    ProgressBar bar("train", "batches", /*quiet=*/false);
    const ProgressCallback callback = bar.callback();
    for (int i = 0; i <= 1000; ++i) {
      callback(i, 1000, "");
    }
  });
  // The first state, the last one (not all in between), one line.
  EXPECT_TRUE(text.starts_with("\rtrain   0% [>")) << text;
  EXPECT_NE(text.find("\rtrain 100% [==="), std::string::npos) << text;
  EXPECT_LT(std::count(text.begin(), text.end(), '\r'), 50) << text;
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1) << text;
  EXPECT_TRUE(text.ends_with("\x1b[K\r\n")) << text;
}

TEST(ProgressBar, QuietIsQuiet) {
  EXPECT_EQ(
      on_terminal([] {
        ProgressBar bar("train", "batches", /*quiet=*/true);
        bar.update(1, 2);
      }),
      "");
}

} // namespace
} // namespace merganser
