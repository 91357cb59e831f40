#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "merganser/io/atomic_file.h"
#include "merganser/io/safetensors.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace merganser {
namespace {

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

std::string text_of(const SafetensorsFile& file, const std::string& name) {
  std::string text(file.find(name)->bytes(), '\0');
  file.read(name, std::as_writable_bytes(std::span(text)));
  return text;
}

TEST(SafetensorsWriter, AnyOrderAndParts) {
  test::TemporaryFolder folder;
  SafetensorsWriter writer(
      folder / "f", {{"a", DType::kU8, {6}}, {"b", DType::kU8, {3}}});
  writer.write("b", bytes_of("xyz"));
  writer.write("a", bytes_of("56"), 4);
  writer.write("a", bytes_of("12"), 0);
  writer.write("a", bytes_of(""), 2);
  writer.write("a", bytes_of("34"), 2);
  EXPECT_EQ(folder.names().size(), 1u);
  EXPECT_NE(folder.names().front(), "f");
  writer.finish();
  EXPECT_EQ(folder.names(), std::vector<std::string>{"f"});
  const SafetensorsFile file(folder / "f");
  EXPECT_EQ(text_of(file, "a"), "123456");
  EXPECT_EQ(text_of(file, "b"), "xyz");
}

// Every tensor is stored at a multiple of its element size from the start of
// the file, in any order of declaration.
TEST(SafetensorsWriter, Alignment) {
  test::TemporaryFolder folder;
  for (size_t name_size = 1; name_size < 10; ++name_size) {
    const std::vector<TensorInfo> tensors = {
        {std::string(name_size, 'b'), DType::kBool, {3}},
        {"f4", DType::kF4, {2}},
        {"f16", DType::kF16, {5}},
        {"i64", DType::kI64, {1}},
        {"f32", DType::kF32, {3}}};
    SafetensorsWriter writer(folder / "f", tensors);
    const std::string zeros(100, '\0');
    for (const TensorInfo& tensor : tensors) {
      writer.write(tensor.name, bytes_of(zeros).first(tensor.bytes()));
    }
    writer.finish();
    const std::string bytes = read_file(folder / "f");
    const size_t header = static_cast<unsigned char>(bytes[0]) +
        256 * static_cast<unsigned char>(bytes[1]);
    EXPECT_EQ((8 + header) % 8, 0u);
    const auto json = nlohmann::json::parse(bytes.substr(8, header));
    for (const TensorInfo& tensor : tensors) {
      const size_t begin = json[tensor.name]["data_offsets"][0];
      const auto width =
          static_cast<size_t>(std::max(1, dtype_bits(tensor.dtype) / 8));
      EXPECT_EQ((8 + header + begin) % width, 0u) << tensor.name;
    }
  }
}

TEST(SafetensorsWriter, SeveralThreads) {
  test::TemporaryFolder folder;
  constexpr int kThreads = 4;
  constexpr int kParts = 500;
  SafetensorsWriter writer(
      folder / "f", {{"a", DType::kU8, {kThreads * kParts}}});
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&writer, t] {
      for (int i = 0; i < kParts; ++i) {
        const char c = static_cast<char>('a' + t);
        writer.write(
            "a", bytes_of({&c, 1}), static_cast<uint64_t>(i * kThreads + t));
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  writer.finish();
  const std::string text = text_of(SafetensorsFile(folder / "f"), "a");
  for (size_t i = 0; i < text.size(); ++i) {
    ASSERT_EQ(text[i], static_cast<char>('a' + i % kThreads)) << i;
  }
}

TEST(SafetensorsWriter, RefusesDeclarations) {
  test::TemporaryFolder folder;
  const auto declare = [&](std::vector<TensorInfo> tensors,
                           const Metadata& metadata = {}) {
    return [&folder, tensors, metadata] {
      SafetensorsWriter writer(folder / "f", tensors, metadata);
    };
  };
  using test::expect_error;
  const TensorInfo w{"w", DType::kU8, {1}};
  expect_error<InputError>(declare({w, w}), {"f: ", "'w'", "twice"});
  expect_error<InputError>(
      declare({{"__metadata__", DType::kU8, {1}}}), {"'__metadata__'"});
  expect_error<InputError>(
      declare({{"w\xff", DType::kU8, {1}}}), {"f: ", "UTF-8"});
  expect_error<InputError>(declare({w}, {{"k", "\xff"}}), {"f: ", "UTF-8"});
  expect_error<InputError>(
      declare({{"w", DType::kF4, {1}}}), {"'w'", "whole number"});
  const int64_t large = int64_t{1} << 57; // 2^60 bytes
  expect_error<InputError>(
      declare(
          {{"s", DType::kF64, {large}},
           {"t", DType::kF64, {large}},
           {"u", DType::kF64, {large}},
           {"v", DType::kF64, {large}},
           {"w", DType::kF64, {1}}}),
      {"'w'", "2^62"});
  expect_error<InputError>(
      declare({{std::string(100'000'000, 'w'), DType::kU8, {1}}}),
      {"f: ", "header", "100000000"});
  EXPECT_TRUE(folder.names().empty());
}

TEST(SafetensorsWriter, RefusesData) {
  test::TemporaryFolder folder;
  {
    SafetensorsWriter writer(
        folder / "f", {{"v", DType::kU8, {2}}, {"w", DType::kU8, {4}}});
    using test::expect_error;
    writer.write("w", bytes_of("12"), 1);
    expect_error<Error>(
        [&] { writer.write("u", bytes_of("1")); }, {"'u'", "not declared"});
    expect_error<Error>(
        [&] { writer.write("w", bytes_of("12345")); }, {"'w'", "has 4"});
    expect_error<Error>(
        [&] { writer.write("w", bytes_of("1"), UINT64_MAX); }, {"'w'"});
    for (const uint64_t offset : {0, 1, 2}) {
      expect_error<Error>(
          [&] { writer.write("w", bytes_of("12"), offset); }, {"'w'", "twice"});
    }
    writer.write("v", bytes_of("12"));
    expect_error<Error>(
        [&] { writer.finish(); }, {"'w'", "byte 0 was not written"});
    writer.write("w", bytes_of("1"));
    expect_error<Error>(
        [&] { writer.finish(); }, {"'w'", "byte 3 was not written"});
  }
  EXPECT_TRUE(folder.names().empty());
}

} // namespace
} // namespace merganser
