#include <gtest/gtest.h>

#include "merganser/io/safetensors.h"
#include "raw_safetensors.h"
#include "support/expect_error.h"

namespace merganser {
namespace {

std::vector<std::byte> counting_bytes(size_t size, int first) {
  std::vector<std::byte> bytes(size);
  for (size_t i = 0; i < size; ++i) {
    bytes[i] = static_cast<std::byte>(first + static_cast<int>(i));
  }
  return bytes;
}

std::vector<std::byte> read_all(
    const SafetensorsFile& file,
    const std::string& name) {
  std::vector<std::byte> bytes(file.find(name)->bytes());
  file.read(name, bytes);
  return bytes;
}

// The example in the format's description, byte by byte.
TEST(Safetensors, ReadsHandWrittenFile) {
  test::TemporaryFolder folder;
  const auto path = test::write_bytes(
      folder / "f.safetensors",
      test::raw_safetensors(
          R"({"__metadata__":{"k":"v"},)"
          R"("second":{"dtype":"U8","shape":[3],"data_offsets":[4,7]},)"
          R"("first":{"dtype":"I16","shape":[1,2],"data_offsets":[0,4]}}  )",
          "abcdxyz"));
  const SafetensorsFile file(path);
  EXPECT_EQ(file.path(), path);
  EXPECT_EQ(file.metadata(), (Metadata{{"k", "v"}}));
  const std::vector<TensorInfo> expected = {
      {"first", DType::kI16, {1, 2}}, {"second", DType::kU8, {3}}};
  EXPECT_EQ(file.tensors(), expected);
  EXPECT_EQ(file.find("third"), nullptr);
  char text[2];
  file.read("second", std::as_writable_bytes(std::span(text)), 1);
  EXPECT_EQ(std::string(text, 2), "yz");
}

// The safetensors package also reads it so.
TEST(Safetensors, NullMetadataAreNone) {
  test::TemporaryFolder folder;
  const SafetensorsFile file(test::write_bytes(
      folder / "f.safetensors",
      test::raw_safetensors(
          R"({"__metadata__":null,)"
          R"("w":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}})",
          "abc")));
  EXPECT_TRUE(file.metadata().empty());
  EXPECT_EQ(file.tensors().size(), 1u);
}

TEST(Safetensors, ReadingOutsideATensor) {
  test::TemporaryFolder folder;
  const SafetensorsFile file(test::write_bytes(
      folder / "f.safetensors",
      test::raw_safetensors(
          R"({"w":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}})", "abc")));
  std::vector<std::byte> out(2);
  using test::expect_error;
  expect_error<InputError>(
      [&] { file.read("w", out, 2); }, {"f.safetensors", "'w'", "2 to 4"});
  expect_error<InputError>(
      [&] { file.read("w", out, UINT64_MAX); }, {"f.safetensors", "'w'"});
  expect_error<InputError>(
      [&] { file.read("v", out); }, {"f.safetensors", "no tensor 'v'"});
  // Truncated while it is open: not the caller's fault.
  const auto size = std::filesystem::file_size(file.path());
  std::filesystem::resize_file(file.path(), size - 2);
  expect_error<Error>(
      [&] { file.read("w", out); }, {"f.safetensors", "changed"});
}

class EachDType : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(
    DTypes,
    EachDType,
    testing::Range(0, static_cast<int>(DType::kU64) + 1),
    [](const auto& info) {
      return std::string(dtype_name(static_cast<DType>(info.param)));
    });

TEST_P(EachDType, RoundTrip) {
  test::TemporaryFolder folder;
  const auto dtype = static_cast<DType>(GetParam());
  const auto path = folder / "f.safetensors";
  // Sizes of whole bytes for 4 and 6 bits too; none, one and many.
  const std::vector<TensorInfo> tensors = {
      {"scalar-like", dtype, {4, 1}},
      {"empty", dtype, {0, 7}},
      {"many", dtype, {4, 3, 25}}};
  SafetensorsWriter writer(path, tensors, {{"key", "value \u00e9"}});
  for (const TensorInfo& tensor : tensors) {
    writer.write(tensor.name, counting_bytes(tensor.bytes(), 3));
  }
  writer.finish();
  const SafetensorsFile file(path);
  EXPECT_EQ(file.metadata().at("key"), "value \u00e9");
  ASSERT_EQ(file.tensors().size(), tensors.size());
  for (const TensorInfo& tensor : tensors) {
    EXPECT_EQ(*file.find(tensor.name), tensor);
    EXPECT_EQ(read_all(file, tensor.name), counting_bytes(tensor.bytes(), 3));
  }
}

TEST(Safetensors, ScalarsAndNoTensors) {
  test::TemporaryFolder folder;
  {
    SafetensorsWriter writer(folder / "none", {});
    writer.finish();
  }
  EXPECT_TRUE(SafetensorsFile(folder / "none").tensors().empty());
  {
    SafetensorsWriter writer(folder / "one", {{"s", DType::kF64, {}}});
    writer.write("s", counting_bytes(8, 0));
    writer.finish();
  }
  const SafetensorsFile file(folder / "one");
  EXPECT_EQ(read_all(file, "s"), counting_bytes(8, 0));
}

// Names and metadata of any Unicode text, and of JSON's own characters.
TEST(Safetensors, OddNames) {
  test::TemporaryFolder folder;
  const std::vector<std::string> names = {
      "",
      "\"quoted\\\"",
      std::string("nul\0inside", 10),
      "\u00e9\u4e2d\U0001f985",
      "line\nbreak\t\x1b"};
  std::vector<TensorInfo> tensors;
  Metadata metadata;
  for (const std::string& name : names) {
    tensors.push_back({name, DType::kU8, {1}});
    metadata[name] = name;
  }
  SafetensorsWriter writer(folder / "f", tensors, metadata);
  for (size_t i = 0; i < names.size(); ++i) {
    writer.write(names[i], counting_bytes(1, static_cast<int>(i)));
  }
  writer.finish();
  const SafetensorsFile file(folder / "f");
  EXPECT_EQ(file.metadata(), metadata);
  for (size_t i = 0; i < names.size(); ++i) {
    EXPECT_EQ(read_all(file, names[i]), counting_bytes(1, static_cast<int>(i)));
  }
}

} // namespace
} // namespace merganser
