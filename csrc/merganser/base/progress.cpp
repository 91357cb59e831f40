#include "merganser/base/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <utility>

#include "merganser/base/progress_text.h"

namespace merganser {

namespace {

using Clock = std::chrono::steady_clock;

bool can_redraw() {
  const char* type = std::getenv("TERM");
  return ::isatty(STDERR_FILENO) != 0 && type != nullptr &&
      std::string_view(type) != "dumb";
}

// One less than the terminal has: some terminals wrap in the last column.
int usable_columns() {
  winsize size{};
  const bool known =
      ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1;
  return (known ? size.ws_col : 80) - 1;
}

} // namespace

ProgressBar::ProgressBar(std::string label, std::string unit, bool quiet)
    : label_(std::move(label)),
      unit_(std::move(unit)),
      quiet_(quiet),
      terminal_(can_redraw()) {}

ProgressBar::~ProgressBar() {
  // Short work needs no line in a log.
  if (started_ && !current_ && (terminal_ || shown_)) {
    show(Clock::now());
  }
  if (terminal_ && shown_) {
    std::fputc('\n', stderr);
  }
}

void ProgressBar::update(int64_t done, int64_t total, const std::string& text) {
  if (quiet_) {
    return;
  }
  const auto now = Clock::now();
  if (!started_) {
    started_ = true;
    first_ = done;
    start_ = now;
    // The first line of a log comes after the first period, the first drawing
    // on a terminal at once.
    last_ = terminal_ ? Clock::time_point::min() : now;
  }
  done_ = done;
  total_ = total;
  text_ = text;
  current_ = false;
  const auto period =
      terminal_ ? std::chrono::milliseconds(100) : std::chrono::seconds(10);
  if (last_ == Clock::time_point::min() || now - last_ >= period) {
    show(now);
  }
}

ProgressCallback ProgressBar::callback() {
  return [this](int64_t done, int64_t total, const std::string& text) {
    update(done, total, text);
  };
}

void ProgressBar::erase() {
  if (terminal_ && shown_) {
    std::fputs("\r\x1b[K", stderr);
  }
  started_ = false;
  shown_ = false;
}

void ProgressBar::show(Clock::time_point now) {
  const ProgressState state{
      label_,
      unit_,
      text_,
      done_,
      total_,
      first_,
      std::chrono::duration<double>(now - start_).count()};
  if (terminal_) {
    // Carriage return, the line, then erase the rest of a longer line.
    const std::string line = progress_text(state, usable_columns());
    std::fprintf(stderr, "\r%s\x1b[K", line.c_str());
  } else {
    std::fprintf(stderr, "%s\n", progress_text(state, 0).c_str());
  }
  std::fflush(stderr);
  last_ = now;
  shown_ = true;
  current_ = true;
}

} // namespace merganser
