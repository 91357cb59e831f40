#include <gtest/gtest.h>

#include <random>

#include "merganser/base/error.h"
#include "merganser/io/atomic_file.h"
#include "merganser/io/safetensors.h"
#include "raw_safetensors.h"

// Damaged files. They are refused with an InputError that names the file; an
// accepted file can be read to the end.

namespace merganser {
namespace {

std::string whole_file(const test::TemporaryFolder& folder) {
  SafetensorsWriter writer(
      folder / "whole",
      {{"a", DType::kF32, {3}}, {"b", DType::kU8, {5}}},
      {{"k", "v"}});
  const std::vector<std::byte> data(12, std::byte{7});
  writer.write("a", data);
  writer.write("b", std::span(data).first(5));
  writer.finish();
  return read_file(folder / "whole");
}

// True when the file was accepted.
bool open_and_read(const std::filesystem::path& path) {
  try {
    const SafetensorsFile file(path);
    for (const TensorInfo& tensor : file.tensors()) {
      std::vector<std::byte> bytes(tensor.bytes());
      file.read(tensor.name, bytes);
    }
    return true;
  } catch (const InputError& error) {
    const std::string message = error.what();
    EXPECT_TRUE(message.starts_with(path.string() + ": ")) << message;
    return false;
  }
}

TEST(SafetensorsCorrupt, CutAnywhere) {
  test::TemporaryFolder folder;
  const std::string whole = whole_file(folder);
  const auto path = folder / "cut";
  for (size_t size = 0; size < whole.size(); ++size) {
    test::write_bytes(path, std::string_view(whole).substr(0, size));
    EXPECT_FALSE(open_and_read(path)) << size;
  }
  test::write_bytes(path, whole + "x");
  EXPECT_FALSE(open_and_read(path));
  test::write_bytes(path, whole);
  EXPECT_TRUE(open_and_read(path));
}

TEST(SafetensorsCorrupt, RandomBytes) {
  test::TemporaryFolder folder;
  const std::string whole = whole_file(folder);
  std::mt19937 random(1);
  int refused = 0;
  for (int i = 0; i < 5000; ++i) {
    std::string bytes = whole;
    for (unsigned n = random() % 3 + 1; n > 0; --n) {
      const size_t place = random() % bytes.size();
      switch (random() % 4) {
        case 0:
          bytes[place] = static_cast<char>(random());
          break;
        case 1:
          bytes[place] ^= static_cast<char>(1 << random() % 8);
          break;
        case 2:
          bytes.erase(place, random() % 4 + 1);
          break;
        default:
          bytes.insert(place, 1, "{}[]\":,09\\ "[random() % 11]);
      }
    }
    refused += !open_and_read(test::write_bytes(folder / "damaged", bytes));
  }
  // Most of the file is header, and most of its bytes matter.
  EXPECT_GT(refused, 3000);
}

} // namespace
} // namespace merganser
