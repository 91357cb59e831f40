#include <gtest/gtest.h>

#include <array>

#include "merganser/base/error.h"
#include "merganser/io/atomic_file.h"
#include "merganser/io/header_only.h"
#include "merganser/io/hub_cache.h"
#include "merganser/io/safetensors.h"
#include "raw_safetensors.h"
#include "support/environment.h"
#include "support/expect_error.h"

namespace merganser {
namespace {

namespace fs = std::filesystem;

// A snapshot with the header of a tensor of eight bytes.
class HeadersOfAModel : public testing::Test {
 protected:
  HeadersOfAModel() {
    fs::create_directories(snapshot_ / "2_Dense");
    fs::create_directories(repository_ / "headers");
    write_file(snapshot_ / "config.json", "{}");
    write_file(file_, header_);
    describe(header_.size() + 8);
  }

  void describe(uint64_t size) const {
    write_file(
        repository_ / "headers" / "c0ffee.json",
        R"({"model": "org/name@v1", "bytes": 77, "sizes":)"
        R"( {"model.safetensors": )" +
            std::to_string(size) + R"(, "2_Dense/model.safetensors": 5}})");
  }

  const test::TemporaryFolder temporary_;
  const fs::path repository_ = temporary_ / "models--org--name";
  const fs::path snapshot_ = repository_ / "snapshots" / "c0ffee";
  const fs::path file_ = snapshot_ / "model.safetensors";
  const std::string header_ = test::raw_safetensors(
      R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})");
};

TEST_F(HeadersOfAModel, AreFoundByAllTheirPaths) {
  for (const fs::path& path :
       {snapshot_, file_, snapshot_ / "2_Dense" / "model.safetensors"}) {
    const auto found = find_header_only(path);
    ASSERT_TRUE(found) << path;
    EXPECT_EQ(found->model, "org/name@v1");
    EXPECT_EQ(found->bytes, 77);
  }
  EXPECT_EQ(whole_size(file_), header_.size() + 8);
  EXPECT_EQ(whole_size(snapshot_ / "2_Dense" / "model.safetensors"), 5);
  EXPECT_FALSE(whole_size(snapshot_ / "config.json"));
  EXPECT_FALSE(find_header_only(repository_));
  fs::remove(repository_ / "headers" / "c0ffee.json");
  EXPECT_FALSE(find_header_only(snapshot_));
}

TEST_F(HeadersOfAModel, HaveTensorsWithoutData) {
  const SafetensorsFile file(file_);
  EXPECT_EQ(file.tensors(), (std::vector<TensorInfo>{{"w", DType::kF32, {2}}}));
  std::array<std::byte, 4> bytes;
  test::expect_error<Error>(
      [&] { file.read("w", bytes); }, {file_.string(), "ends at byte"});
}

TEST_F(HeadersOfAModel, FitTheWholeFile) {
  describe(header_.size() + 7);
  test::expect_error<InputError>(
      [&] { SafetensorsFile{file_}; }, {"the file holds 7"});
  describe(header_.size() + 9);
  test::expect_error<InputError>(
      [&] { SafetensorsFile{file_}; }, {"1 bytes follow the last tensor"});
}

} // namespace
} // namespace merganser
