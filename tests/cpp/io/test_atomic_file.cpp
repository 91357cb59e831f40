#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "merganser/io/atomic_file.h"
#include "raw_safetensors.h"
#include "support/expect_error.h"

namespace fs = std::filesystem;

namespace merganser {
namespace {

using test::expect_error;
using Names = std::vector<std::string>;

TEST(AtomicFile, AppearsOnCommitOnly) {
  test::TemporaryFolder folder;
  test::write_bytes(folder / "f", "old");
  {
    AtomicFile file(folder / "f");
    file.write("new", 3);
    file.write("er", 2);
    file.file().write_at(0, "N", 1);
    EXPECT_EQ(read_file(folder / "f"), "old");
    file.commit();
  }
  EXPECT_EQ(read_file(folder / "f"), "Newer");
  EXPECT_EQ(folder.names(), Names{"f"});
}

TEST(AtomicFile, LeavesNothingWithoutCommit) {
  test::TemporaryFolder folder;
  test::write_bytes(folder / "f", "old");
  {
    AtomicFile there(folder / "f");
    AtomicFile absent(folder / "g");
    there.write("new", 3);
    absent.write("new", 3);
  }
  EXPECT_EQ(read_file(folder / "f"), "old");
  EXPECT_EQ(folder.names(), Names{"f"});
}

TEST(AtomicFile, ModeIsThatOfAnyNewFile) {
  test::TemporaryFolder folder;
  const mode_t mask = ::umask(0027);
  write_file(folder / "f", "");
  ::umask(mask);
  EXPECT_EQ(fs::status(folder / "f").permissions(), fs::perms(0640));
}

TEST(AtomicFile, WritesThroughALink) {
  test::TemporaryFolder folder;
  fs::create_directory(folder / "d");
  test::write_bytes(folder / "d" / "target", "old");
  fs::create_symlink("d/target", folder / "link");
  write_file(folder / "link", "new");
  EXPECT_TRUE(fs::is_symlink(folder / "link"));
  EXPECT_EQ(read_file(folder / "d" / "target"), "new");
}

TEST(AtomicFile, RelativeAndLongNames) {
  test::TemporaryFolder folder;
  const fs::path before = fs::current_path();
  fs::current_path(folder.path());
  write_file("here", "x");
  write_file(std::string(255, 'n'), "y");
  fs::current_path(before);
  EXPECT_EQ(read_file(folder / "here"), "x");
  EXPECT_EQ(read_file(folder / std::string(255, 'n')), "y");
}

TEST(AtomicFile, RefusesBadPlaces) {
  test::TemporaryFolder folder;
  expect_error<InputError>(
      [&] { write_file(folder.path(), "x"); },
      {folder.path().string(), "is not a regular file"});
  // A rename onto a device would replace it with a file.
  expect_error<InputError>(
      [] { write_file("/dev/null", "x"); },
      {"/dev/null", "is not a regular file"});
  expect_error<Error>(
      [&] { write_file(folder / "none" / "f", "x"); },
      {"none/f", "No such file or directory"});
  expect_error<Error>(
      [&] { write_file(folder / std::string(300, 'n'), "x"); },
      {"File name too long"});
}

TEST(ReadFile, WholeFilesAndPipes) {
  test::TemporaryFolder folder;
  std::string bytes(200'000, '\0');
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<char>(i * 31);
  }
  EXPECT_EQ(read_file(test::write_bytes(folder / "f", bytes)), bytes);
  EXPECT_EQ(read_file(test::write_bytes(folder / "f", "")), "");
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  ASSERT_EQ(::write(ends[1], "piped", 5), 5);
  ::close(ends[1]);
  EXPECT_EQ(read_file("/proc/self/fd/" + std::to_string(ends[0])), "piped");
  ::close(ends[0]);
}

TEST(ReadFile, RefusesWhatCannotBeRead) {
  test::TemporaryFolder folder;
  expect_error<InputError>(
      [&] { read_file(folder / "absent"); }, {"absent", "No such file"});
  expect_error<InputError>(
      [&] { read_file(folder.path()); },
      {folder.path().string(), "Is a directory"});
}

} // namespace
} // namespace merganser
