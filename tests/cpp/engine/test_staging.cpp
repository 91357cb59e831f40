#include "merganser/engine/staging.h"

#include <gtest/gtest.h>

#include <thread>

#include "merganser/base/error.h"
#include "support/expect_error.h"
#include "support/model_files.h"
#include "support/temporary_folder.h"

namespace merganser::test {
namespace {

namespace fs = std::filesystem;
using Lines = std::vector<std::string>;

class StagingTest : public ::testing::Test {
 protected:
  // Leaves what a run that was killed after these lines leaves.
  void leave(const Lines& lines, const std::string& identity = "merge 1") {
    Staging staging(out_, identity, /*resume=*/false);
    write_text(staging.folder() / "weights", "half");
    for (const std::string& line : lines) {
      staging.add(line);
    }
    staging.keep();
  }

  std::string journal() const {
    return read_file(root_ / "journal");
  }

  TemporaryFolder folder_;
  const fs::path out_ = folder_ / "out";
  const fs::path root_ = folder_ / "out.merging";
};

TEST_F(StagingTest, CommitsACompleteDirectory) {
  {
    Staging staging(out_, "merge 1", /*resume=*/false);
    EXPECT_EQ(staging.out(), out_);
    EXPECT_EQ(staging.folder(), root_ / "model");
    EXPECT_TRUE(staging.finished().empty());
    write_text(staging.folder() / "weights", "whole");
    EXPECT_FALSE(fs::exists(out_));
    staging.commit();
    EXPECT_EQ(read_file(out_ / "weights"), "whole");
  }
  EXPECT_EQ(folder_.names(), Lines{"out"});
}

TEST_F(StagingTest, CommitReplacesAnEmptyDirectory) {
  fs::create_directory(out_);
  Staging staging(out_, "merge 1", /*resume=*/false);
  write_text(staging.folder() / "weights", "whole");
  staging.commit();
  EXPECT_EQ(read_file(out_ / "weights"), "whole");
}

TEST_F(StagingTest, RefusesAnOutputThatExists) {
  write_text(out_, "mine");
  expect_error<InputError>(
      [&] { Staging(out_, "merge 1", false); },
      {out_.string(), "not a directory"});
  fs::remove(out_);
  fs::create_directory(out_);
  write_text(out_ / "file", "mine");
  for (const bool resume : {false, true}) {
    expect_error<InputError>(
        [&] { Staging(out_, "merge 1", resume); }, {out_.string(), "exists"});
  }
  EXPECT_EQ(read_file(out_ / "file"), "mine");
  EXPECT_EQ(folder_.names(), Lines{"out"});
}

TEST_F(StagingTest, RemovesWhatItCreated) {
  const fs::path deep = folder_ / "new" / "newer" / "out";
  { Staging staging(deep, "merge 1", /*resume=*/false); }
  EXPECT_EQ(folder_.names(), Lines{});
  // Files of others stay, with their directories.
  {
    Staging staging(deep, "merge 1", /*resume=*/false);
    write_text(folder_ / "new" / "mine", "mine");
  }
  EXPECT_EQ(folder_.names(), Lines{"new"});
  EXPECT_FALSE(fs::exists(folder_ / "new" / "newer"));
}

TEST_F(StagingTest, KeepsWhatItWroteWhereAsked) {
  EXPECT_FALSE(Staging::is_begun(out_));
  leave({"0 0 0"});
  EXPECT_TRUE(Staging::is_begun(out_));
  EXPECT_EQ(read_file(root_ / "model" / "weights"), "half");
  EXPECT_FALSE(fs::exists(out_));
  Staging::remove_leftovers(out_);
  EXPECT_FALSE(Staging::is_begun(out_));
  EXPECT_EQ(folder_.names(), Lines{});
}

TEST_F(StagingTest, ResumesTheSameMerge) {
  leave({"0 0 0", "2 1 0"});
  {
    Staging staging(out_, "merge 1", /*resume=*/true);
    EXPECT_EQ(staging.finished(), (Lines{"0 0 0", "2 1 0"}));
    EXPECT_EQ(read_file(staging.folder() / "weights"), "half");
    staging.add("1 0 0");
    staging.keep();
  }
  Staging staging(out_, "merge 1", /*resume=*/true);
  EXPECT_EQ(staging.finished(), (Lines{"0 0 0", "2 1 0", "1 0 0"}));
  staging.commit();
  EXPECT_EQ(read_file(out_ / "weights"), "half");
}

TEST_F(StagingTest, StartsAgainWithoutResume) {
  leave({"0 0 0"});
  Staging staging(out_, "merge 1", /*resume=*/false);
  EXPECT_TRUE(staging.finished().empty());
  EXPECT_TRUE(fs::is_empty(staging.folder()));
  EXPECT_EQ(journal().find("0 0 0\n"), std::string::npos);
}

// The data of the earlier run are useless without a finished part.
TEST_F(StagingTest, StartsAgainWithoutAFinishedPart) {
  leave({});
  Staging staging(out_, "merge 1", /*resume=*/true);
  EXPECT_TRUE(staging.finished().empty());
  EXPECT_TRUE(fs::is_empty(staging.folder()));
}

TEST_F(StagingTest, RefusesToResumeAnotherMerge) {
  leave({"0 0 0"});
  const std::string before = journal();
  expect_error<InputError>(
      [&] { Staging(out_, "merge 2", /*resume=*/true); },
      {root_.string(), "another merge", "--resume"});
  EXPECT_EQ(journal(), before);
  EXPECT_EQ(read_file(root_ / "model" / "weights"), "half");
}

// Lines may exist without their data after a crash of the machine.
TEST_F(StagingTest, RefusesToResumeAfterARestart) {
  leave({"0 0 0"});
  write_text(root_ / "journal", "merganser merge, merge 1, boot 0\n0 0 0\n");
  expect_error<InputError>(
      [&] { Staging(out_, "merge 1", /*resume=*/true); },
      {root_.string(), "restarted"});
}

TEST_F(StagingTest, IgnoresATornLine) {
  leave({"0 0 0", "2 1 0"});
  const std::string whole = journal();
  for (const std::string& torn :
       {std::string("1 0"), std::string("1 0 0 77")}) {
    write_text(root_ / "journal", whole + torn);
    {
      Staging staging(out_, "merge 1", /*resume=*/true);
      EXPECT_EQ(staging.finished(), (Lines{"0 0 0", "2 1 0"}));
      staging.add("3 0 0");
      staging.keep();
    }
    Staging staging(out_, "merge 1", /*resume=*/true);
    const Lines found = staging.finished();
    ASSERT_GE(found.size(), 3u);
    EXPECT_EQ(found[2], "3 0 0"); // over the torn one
    staging.keep();
  }
}

TEST_F(StagingTest, StartsAgainFromATornHead) {
  leave({});
  const std::string head = journal();
  write_text(root_ / "journal", head.substr(0, 12));
  {
    Staging staging(out_, "merge 1", /*resume=*/true);
    EXPECT_TRUE(staging.finished().empty());
    staging.keep();
  }
  EXPECT_EQ(journal(), head);
}

TEST_F(StagingTest, RefusesContentsOfOthers) {
  fs::create_directory(root_);
  write_text(root_ / "notes", "mine");
  for (const bool resume : {false, true}) {
    expect_error<InputError>(
        [&] { Staging(out_, "merge 1", resume); },
        {root_.string(), "notes", "rename"});
  }
  EXPECT_EQ(read_file(root_ / "notes"), "mine");
  EXPECT_EQ(folder_.names(), Lines{"out.merging"});
  fs::remove_all(root_);
  write_text(root_, "mine");
  expect_error<InputError>(
      [&] { Staging(out_, "merge 1", false); },
      {root_.string(), "not a directory", "rename"});
  EXPECT_EQ(read_file(root_), "mine");
}

TEST_F(StagingTest, RemovesTemporaryFilesOfTheEarlierRun) {
  leave({"0 0 0"});
  const fs::path model = root_ / "model";
  fs::create_directory(model / "weight=1");
  for (const fs::path& file :
       {model / ".weights.1.tmp", model / "weight=1" / ".config.json.2.tmp"}) {
    write_text(file, "torn");
  }
  for (const char* name : {"visible.tmp", ".hidden"}) {
    write_text(model / name, "whole");
  }
  const Staging staging(out_, "merge 1", /*resume=*/true);
  Lines names;
  for (const auto& entry : fs::recursive_directory_iterator(model)) {
    names.push_back(entry.path().filename().string());
  }
  std::ranges::sort(names);
  EXPECT_EQ(names, (Lines{".hidden", "visible.tmp", "weight=1", "weights"}));
}

TEST_F(StagingTest, IsLockedWhileItLives) {
  {
    Staging staging(out_, "merge 1", /*resume=*/false);
    staging.add("0 0 0");
    for (const bool resume : {false, true}) {
      expect_error<Error>(
          [&] { Staging(out_, "merge 1", resume); }, {root_.string()});
    }
    EXPECT_NE(journal().find("\n0 0 0\n"), std::string::npos);
    staging.keep();
  }
  const Staging staging(out_, "merge 1", /*resume=*/true);
  EXPECT_EQ(staging.finished(), Lines{"0 0 0"});
}

TEST_F(StagingTest, AddsLinesFromSeveralThreads) {
  constexpr int kThreads = 4, kLines = 200;
  {
    Staging staging(out_, "merge 1", /*resume=*/false);
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&staging, t] {
        for (int i = 0; i < kLines; ++i) {
          staging.add(std::string(t + 1, 'x') + std::to_string(i));
        }
      });
    }
    for (std::thread& thread : threads) {
      thread.join();
    }
    staging.keep();
  }
  Staging staging(out_, "merge 1", /*resume=*/true);
  Lines expected;
  for (int t = 0; t < kThreads; ++t) {
    for (int i = 0; i < kLines; ++i) {
      expected.push_back(std::string(t + 1, 'x') + std::to_string(i));
    }
  }
  Lines found = staging.finished();
  std::ranges::sort(expected);
  std::ranges::sort(found);
  EXPECT_EQ(found, expected);
}

} // namespace
} // namespace merganser::test
