#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>

#include "merganser/base/interrupt.h"
#include "merganser/io/atomic_file.h"
#include "merganser/io/checkpoint.h"
#include "raw_safetensors.h"
#include "support/expect_error.h"

// A limit on the size of files simulates a full disk: the same system calls
// fail, only the reason differs (EFBIG for ENOSPC).

namespace merganser {
namespace {

using test::expect_error;
using Names = std::vector<std::string>;

class FullDisk : public testing::Test {
 protected:
  static constexpr rlim_t kLimit = 10'000;

  void SetUp() override {
    install_interrupt_handler(); // SIGXFSZ would end the process
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{kLimit, before_.rlim_max};
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
  }
  void TearDown() override {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    for (const int s : {SIGINT, SIGTERM, SIGHUP, SIGXFSZ}) {
      std::signal(s, SIG_DFL);
    }
  }

  test::TemporaryFolder folder_;
  rlimit before_{};
};

TEST_F(FullDisk, KeepsTheOldFile) {
  write_file(folder_ / "f", "old");
  const std::string large(kLimit + 1, 'x');
  expect_error<Error>(
      [&] { write_file(folder_ / "f", large); },
      {"/f: cannot be written", "File too large"});
  EXPECT_EQ(folder_.names(), Names{"f"});
  EXPECT_EQ(read_file(folder_ / "f"), "old");
}

TEST_F(FullDisk, IsReportedBeforeTheWork) {
  const std::vector<TensorInfo> tensors = {
      {"w", DType::kF32, {static_cast<int64_t>(kLimit / 4)}}};
  expect_error<Error>(
      [&] { SafetensorsWriter writer(folder_ / "f", tensors); },
      {"/f: cannot be written", "File too large"});
  expect_error<Error>(
      [&] { CheckpointWriter writer(folder_.path(), tensors, {}); },
      {"/model.safetensors: cannot be written"});
  EXPECT_TRUE(folder_.names().empty());
}

TEST_F(FullDisk, LeavesNoDirectory) {
  expect_error<Error>(
      [&] {
        AtomicDirectory directory(folder_ / "out", /*replace=*/false);
        write_file(directory.path() / "fits", "x");
        write_file(directory.path() / "f", std::string(kLimit + 1, 'x'));
        directory.commit();
      },
      {"/f: cannot be written"});
  EXPECT_TRUE(folder_.names().empty());
}

} // namespace
} // namespace merganser
