#include <gtest/gtest.h>

#include "merganser/io/hash.h"
#include "raw_safetensors.h"
#include "support/expect_error.h"

namespace merganser {
namespace {

std::string hash_bytes(const void* data, size_t size) {
  Hasher hasher;
  hasher.update(data, size);
  return hasher.digest();
}

// Computed with the Python package xxhash, xxh3_128_hexdigest.
TEST(Hash, KnownValues) {
  EXPECT_EQ(hash_bytes("", 0), "99aa06d3014798d86001c324468d497f");
  EXPECT_EQ(hash_bytes("merganser", 9), "1e3de5990eb0338b04e3069f93db27be");
}

TEST(Hash, FileEqualsBytes) {
  test::TemporaryFolder folder;
  for (const size_t size : {0, 1, 1 << 20, (1 << 20) + 1, 3'000'000}) {
    std::string bytes(size, 'x');
    for (size_t i = 0; i < size; i += 7) {
      bytes[i] = static_cast<char>(i);
    }
    const auto path = test::write_bytes(folder / "f", bytes);
    EXPECT_EQ(hash_file(path), hash_bytes(bytes.data(), size)) << size;
  }
}

TEST(Hash, TextCarriesItsLength) {
  Hasher one;
  one.update("ab");
  one.update("c");
  Hasher other;
  other.update("a");
  other.update("bc");
  EXPECT_NE(one.digest(), other.digest());
}

TEST(Hash, MissingFile) {
  test::expect_error<InputError>(
      [] { hash_file("/nowhere/f"); }, {"/nowhere/f", "No such file"});
}

} // namespace
} // namespace merganser
