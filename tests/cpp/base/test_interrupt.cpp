#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <functional>

#include "merganser/base/error.h"
#include "merganser/base/interrupt.h"
#include "merganser/io/checkpoint.h"
#include "support/temporary_folder.h"

// Sends signals to a child process, which exits with a code that tells the
// case.

namespace merganser {
namespace {

int run_in_child(const std::function<void()>& work) {
  const pid_t child = ::fork();
  if (child == 0) {
    for (const int s : {SIGINT, SIGTERM, SIGHUP}) {
      std::signal(s, SIG_DFL); // whatever the parent set
    }
    try {
      work();
    } catch (const Interrupted& error) {
      const bool named =
          std::string(error.what()).find("SIG") != std::string::npos;
      ::_exit(named ? 42 : 1);
    }
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return status;
}

constexpr int kInterrupted = 42 << 8; // as waitpid reports an exit with 42

TEST(Interrupt, EachSignalThrows) {
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    EXPECT_EQ(
        run_in_child([&] {
          install_interrupt_handler();
          check_interrupt();
          ::raise(signal);
          check_interrupt();
        }),
        kInterrupted);
  }
}

TEST(Interrupt, NoSignalNoThrow) {
  EXPECT_EQ(
      run_in_child([] {
        install_interrupt_handler();
        check_interrupt();
      }),
      0);
}

TEST(Interrupt, SecondSignalEnds) {
  const int status = run_in_child([] {
    install_interrupt_handler();
    ::raise(SIGINT);
    ::raise(SIGTERM);
  });
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(WTERMSIG(status), SIGTERM);
}

TEST(Interrupt, IgnoredSignalsStayIgnored) {
  EXPECT_EQ(
      run_in_child([] {
        std::signal(SIGHUP, SIG_IGN); // as nohup does
        install_interrupt_handler();
        ::raise(SIGHUP);
        check_interrupt();
      }),
      0);
  EXPECT_EQ(
      run_in_child([] {
        std::signal(SIGHUP, SIG_IGN);
        install_interrupt_handler();
        ::raise(SIGINT);
        ::raise(SIGHUP); // still ignored after the first
        check_interrupt();
      }),
      kInterrupted);
}

TEST(Interrupt, HookReplacesTheCheck) {
  EXPECT_EQ(
      run_in_child([] {
        set_interrupt_hook([] { throw Interrupted("SIG by hook"); });
        check_interrupt();
      }),
      kInterrupted);
}

TEST(Interrupt, LeavesNothingBehind) {
  test::TemporaryFolder folder;
  const auto out = folder / "out";
  EXPECT_EQ(
      run_in_child([&] {
        install_interrupt_handler();
        AtomicDirectory directory(out, /*replace=*/false);
        CheckpointWriter writer(
            directory.path(),
            {{"v", DType::kU8, {1}}, {"w", DType::kU8, {1}}},
            {},
            /*shard_bytes=*/1);
        const std::byte byte{1};
        writer.write("v", {&byte, 1});
        ::raise(SIGTERM);
        check_interrupt();
        writer.write("w", {&byte, 1});
        writer.finish();
        directory.commit();
      }),
      kInterrupted);
  EXPECT_TRUE(folder.names().empty());
}

} // namespace
} // namespace merganser
