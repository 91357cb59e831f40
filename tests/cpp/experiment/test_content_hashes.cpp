// Hashes of an experiment's inputs, and their cache.

#include "merganser/experiment/content_hashes.h"

#include <gtest/gtest.h>

#include "merganser/io/hash.h"
#include "support/expect_error.h"
#include "support/model_files.h"
#include "support/temporary_folder.h"

namespace merganser {
namespace {

namespace fs = std::filesystem;

class ContentHashesTest : public ::testing::Test {
 protected:
  std::string hash(const fs::path& path) {
    ContentHashes hashes(cache_);
    const std::string found = hashes.of(path);
    hashes.save();
    return found;
  }

  test::TemporaryFolder folder_;
  fs::path cache_ = folder_ / "cache.json";
  fs::path file_ = folder_ / "data.jsonl";
};

TEST_F(ContentHashesTest, AFileIsReadOnceAndAgainWhenItChanges) {
  test::write_text(file_, "one");
  const std::string first = hash(file_);
  EXPECT_EQ(first, hash_file(file_));
  // The cache answers while size, time and inode stay the same.
  std::string cached = read_file(cache_);
  cached.replace(cached.find(first), first.size(), "remembered");
  test::write_text(cache_, cached);
  EXPECT_EQ(hash(file_), "remembered");
  test::write_text(file_, "other");
  EXPECT_EQ(hash(file_), hash_file(file_));
  EXPECT_NE(hash(file_), first);
}

TEST_F(ContentHashesTest, AReplacedFileOfTheSameSizeAndTimeIsRead) {
  test::write_text(file_, "one");
  const std::string first = hash(file_);
  test::write_text(folder_ / "new", "two");
  fs::last_write_time(folder_ / "new", fs::last_write_time(file_));
  fs::rename(folder_ / "new", file_);
  EXPECT_NE(hash(file_), first);
}

TEST_F(ContentHashesTest, ADamagedCacheIsNone) {
  test::write_text(file_, "one");
  for (const char* text : {"", "{", "[1]", R"({"/x": 5})", R"({"/x": {}})"}) {
    test::write_text(cache_, text);
    EXPECT_EQ(hash(file_), hash_file(file_)) << text;
  }
}

TEST_F(ContentHashesTest, AModelIsItsWeightsConfigurationAndCompanions) {
  const fs::path model = folder_ / "model";
  test::write_model(model, {test::floats("w", {1, 2})});
  std::vector<std::string> found = {hash(model)};
  test::write_model(model, {test::floats("w", {1, 3})});
  found.push_back(hash(model));
  test::write_text(model / "config.json", R"({"model_type": "roberta"})");
  found.push_back(hash(model));
  test::write_text(model / "vocab.txt", "a\n");
  found.push_back(hash(model));
  test::write_text(model / "vocab.txt", "b\nc\n");
  found.push_back(hash(model));
  for (size_t i = 1; i < found.size(); ++i) {
    EXPECT_NE(found[i], found[i - 1]) << i;
  }
}

TEST_F(ContentHashesTest, AMissingFileIsNamed) {
  test::expect_error<InputError>(
      [&] { hash(file_); }, {"cannot read", "data.jsonl"});
}

} // namespace
} // namespace merganser
