#include "merganser/io/safetensors_header.h"

#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "merganser/base/error.h"
#include "merganser/base/json_text.h"
#include "merganser/base/quote.h"
#include "merganser/base/strict_json.h"

namespace merganser {

namespace {

[[noreturn]] void fail_tensor(
    const std::string& file,
    const PlacedTensor& tensor,
    const std::string& what) {
  throw InputError(
      fmt::format("{}: tensor {}: {}", file, quote(tensor.info.name), what));
}

void check_size(const std::string& file, const PlacedTensor& tensor) {
  if (tensor.begin > tensor.end) {
    fail_tensor(
        file,
        tensor,
        fmt::format(
            "ends before it begins ({}, {})", tensor.begin, tensor.end));
  }
  uint64_t expected = 0;
  try {
    expected = tensor.info.bytes();
  } catch (const InputError& error) {
    throw InputError(fmt::format("{}: {}", file, error.what()));
  }
  if (tensor.end - tensor.begin != expected) {
    fail_tensor(
        file,
        tensor,
        fmt::format(
            "{} {} has {} bytes, but data_offsets span {}",
            dtype_name(tensor.info.dtype),
            tensor.info.shape_text(),
            expected,
            tensor.end - tensor.begin));
  }
}

} // namespace

SafetensorsHeader parse_safetensors_header(
    std::string_view json,
    uint64_t data_size,
    const std::string& file) {
  SafetensorsHeader header = parse_header_json(json, file);
  auto& tensors = header.tensors;
  for (const PlacedTensor& tensor : tensors) {
    check_size(file, tensor);
  }
  // Stable, and by the end too: a tensor without elements starts where the next
  // one does.
  std::ranges::stable_sort(tensors, {}, [](const PlacedTensor& t) {
    return std::pair(t.begin, t.end);
  });
  uint64_t end = 0;
  for (const PlacedTensor& tensor : tensors) {
    if (tensor.begin != end) {
      fail_tensor(
          file,
          tensor,
          fmt::format(
              "begins at byte {}, but the tensor before it ends at {}: {}",
              tensor.begin,
              end,
              tensor.begin < end ? "they overlap" : "there is a gap"));
    }
    end = tensor.end;
    if (end > data_size) {
      fail_tensor(
          file,
          tensor,
          fmt::format(
              "ends at byte {} of the data, but the file holds {}; the file is "
              "truncated, download it again",
              end,
              data_size));
    }
  }
  if (end != data_size) {
    throw InputError(fmt::format(
        "{}: {} bytes follow the last tensor; the header does not match the "
        "file",
        file,
        data_size - end));
  }
  return header;
}

std::string format_safetensors_header(
    const SafetensorsHeader& header,
    const std::string& file) {
  auto object = nlohmann::ordered_json::object();
  if (!header.metadata.empty()) {
    object["__metadata__"] = header.metadata;
  }
  for (const PlacedTensor& tensor : header.tensors) {
    // push_back: operator[] of an ordered_json searches all names so far.
    object.push_back(
        {tensor.info.name,
         {{"dtype", dtype_name(tensor.info.dtype)},
          {"shape", tensor.info.shape},
          {"data_offsets", {tensor.begin, tensor.end}}}});
  }
  std::string text;
  try {
    text = json_text(object);
  } catch (const nlohmann::json::exception& error) {
    throw InputError(fmt::format(
        "{}: in a tensor's name or the metadata: {}",
        file,
        json_reason(error.what())));
  }
  text.append((8 - text.size() % 8) % 8, ' ');
  if (text.size() > kLargestHeader) {
    throw InputError(fmt::format(
        "{}: the header would have {} bytes, but at most {} are allowed; use "
        "fewer tensors or shorter metadata",
        file,
        text.size(),
        kLargestHeader));
  }
  uint64_t size = text.size();
  std::string result(sizeof(size), '\0');
  for (char& byte : result) { // little endian
    byte = static_cast<char>(size & 0xff);
    size >>= 8;
  }
  return result + text;
}

} // namespace merganser
