#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "merganser/base/api.h"

namespace merganser {

// xxh3-128 as 32 hexadecimal digits.
class MERGANSER_API Hasher {
 public:
  Hasher();
  ~Hasher();
  void update(const void* data, size_t size);
  void update(
      std::string_view text); // with its length, so that "ab","c" != "a","bc"
  std::string digest() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// The hash of a file's content; throws InputError if it cannot be read.
MERGANSER_API std::string hash_file(const std::filesystem::path& path);

} // namespace merganser
