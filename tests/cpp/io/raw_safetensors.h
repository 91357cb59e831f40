#pragma once

#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "support/temporary_folder.h"

namespace merganser::test {

// The bytes of a safetensors file with this header, written by hand.
inline std::string raw_safetensors(
    std::string_view header,
    std::string_view data = "") {
  std::string bytes;
  for (int i = 0; i < 8; ++i) {
    bytes += static_cast<char>(header.size() >> (8 * i) & 0xff);
  }
  return bytes.append(header).append(data);
}

inline std::filesystem::path write_bytes(
    const std::filesystem::path& path,
    std::string_view bytes) {
  // A new file: truncating one makes some file systems flush it first.
  std::filesystem::remove(path);
  std::ofstream(path, std::ios::binary)
      .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  return path;
}

} // namespace merganser::test
