#include <gtest/gtest.h>

#include "merganser/io/atomic_file.h"
#include "raw_safetensors.h"
#include "support/expect_error.h"

namespace fs = std::filesystem;

namespace merganser {
namespace {

using test::expect_error;
using Names = std::vector<std::string>;

void fill(const fs::path& folder, std::string_view content) {
  fs::create_directory(folder / "sub");
  test::write_bytes(folder / "f", content);
  test::write_bytes(folder / "sub" / "g", content);
}

TEST(AtomicDirectory, AppearsOnCommitOnly) {
  test::TemporaryFolder folder;
  {
    AtomicDirectory directory(folder / "out", /*replace=*/false);
    EXPECT_EQ(directory.path().parent_path(), folder.path());
    fill(directory.path(), "new");
    EXPECT_FALSE(fs::exists(folder / "out"));
    directory.commit();
  }
  EXPECT_EQ(folder.names(), Names{"out"});
  EXPECT_EQ(read_file(folder / "out" / "sub" / "g"), "new");
}

TEST(AtomicDirectory, LeavesNothingWithoutCommit) {
  test::TemporaryFolder folder;
  fs::create_directory(folder / "out");
  fill(folder / "out", "old");
  {
    AtomicDirectory directory(folder / "out", /*replace=*/true);
    fill(directory.path(), "new");
  }
  EXPECT_EQ(folder.names(), Names{"out"});
  EXPECT_EQ(read_file(folder / "out" / "f"), "old");
}

TEST(AtomicDirectory, ReplacesInOneStep) {
  test::TemporaryFolder folder;
  fs::create_directory(folder / "out");
  fill(folder / "out", "old");
  test::write_bytes(folder / "out" / "stale", "old");
  {
    AtomicDirectory directory(folder / "out", /*replace=*/true);
    fill(directory.path(), "new");
    directory.commit();
  }
  EXPECT_EQ(folder.names(), Names{"out"});
  EXPECT_EQ(read_file(folder / "out" / "f"), "new");
  EXPECT_FALSE(fs::exists(folder / "out" / "stale"));
}

TEST(AtomicDirectory, ReplacesAnEmptyDirectory) {
  test::TemporaryFolder folder;
  fs::create_directory(folder / "out");
  AtomicDirectory directory(folder / "out", /*replace=*/false);
  fill(directory.path(), "new");
  directory.commit();
  EXPECT_EQ(read_file(folder / "out" / "f"), "new");
}

TEST(AtomicDirectory, CreatesParentsAndTakesAnySpelling) {
  test::TemporaryFolder folder;
  const fs::path before = fs::current_path();
  fs::current_path(folder.path());
  for (const char* name : {"a/b/c", "d/", "./g", "h//i/"}) {
    AtomicDirectory directory(name, /*replace=*/false);
    fill(directory.path(), name);
    directory.commit();
    EXPECT_EQ(read_file(fs::path(name) / "f"), name);
  }
  fs::current_path(before);
  EXPECT_EQ(folder.names(), (Names{"a", "d", "g", "h"}));
}

TEST(AtomicDirectory, ALinkStaysALink) {
  test::TemporaryFolder folder;
  fs::create_directory(folder / "target");
  fs::create_directory_symlink("target", folder / "out");
  AtomicDirectory directory(folder / "out", /*replace=*/false);
  fill(directory.path(), "new");
  directory.commit();
  EXPECT_TRUE(fs::is_symlink(folder / "out"));
  EXPECT_EQ(read_file(folder / "target" / "f"), "new");
}

TEST(AtomicDirectory, RefusesExistingPaths) {
  test::TemporaryFolder folder;
  fs::create_directory(folder / "out");
  fill(folder / "out", "old");
  expect_error<InputError>(
      [&] { AtomicDirectory directory(folder / "out", false); },
      {"/out", "exists already"});
  for (const bool replace : {false, true}) {
    expect_error<InputError>(
        [&] { AtomicDirectory directory(folder / "out" / "f", replace); },
        {"/out/f", "is not a directory"});
  }
  expect_error<Error>(
      [&] { AtomicDirectory directory(folder / "out" / "f" / "x", false); },
      {"/out/f/x", "Not a directory"});
  EXPECT_EQ(folder.names(), Names{"out"});
}

// Another process fills the directory during the work.
TEST(AtomicDirectory, DoesNotOverwriteALateComer) {
  test::TemporaryFolder folder;
  {
    AtomicDirectory directory(folder / "out", /*replace=*/false);
    fill(directory.path(), "new");
    fs::create_directory(folder / "out");
    fill(folder / "out", "theirs");
    expect_error<Error>([&] { directory.commit(); }, {"/out", "not empty"});
  }
  EXPECT_EQ(folder.names(), Names{"out"});
  EXPECT_EQ(read_file(folder / "out" / "f"), "theirs");
}

} // namespace
} // namespace merganser
