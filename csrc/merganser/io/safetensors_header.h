#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "merganser/io/safetensors.h"

namespace merganser {

constexpr uint64_t kLargestHeader =
    100'000'000; // the limit of the safetensors package

// A tensor and the place of its data, counted from the end of the header.
struct PlacedTensor {
  TensorInfo info;
  uint64_t begin = 0;
  uint64_t end = 0;
};

struct SafetensorsHeader {
  std::vector<PlacedTensor> tensors; // in the order of their data
  Metadata metadata;
};

// Parses the JSON text alone; keeps the order of the names. Throws InputError
// that starts with `file`.
SafetensorsHeader parse_header_json(
    std::string_view json,
    const std::string& file);

// Parses and checks the JSON text; `data_size` bytes of data follow it in the
// file. Throws InputError that starts with `file`.
SafetensorsHeader parse_safetensors_header(
    std::string_view json,
    uint64_t data_size,
    const std::string& file);

// The first bytes of the file: the length, the JSON text and spaces up to a
// multiple of eight bytes. Throws InputError that starts with `file`.
std::string format_safetensors_header(
    const SafetensorsHeader& header,
    const std::string& file);

} // namespace merganser
