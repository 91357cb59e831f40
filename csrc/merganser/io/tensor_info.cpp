#include <fmt/format.h>
#include <fmt/ranges.h>

#include "merganser/base/error.h"
#include "merganser/base/quote.h"
#include "merganser/io/safetensors.h"

namespace merganser {

int64_t TensorInfo::numel() const {
  bool overflow = false;
  bool empty = false;
  int64_t count = 1;
  for (const int64_t size : shape) {
    if (size < 0) {
      throw InputError(fmt::format(
          "tensor {}: shape {} has a negative dimension",
          quote(name),
          shape_text()));
    }
    empty |= size == 0;
    overflow |= __builtin_mul_overflow(count, size, &count);
  }
  if (overflow && !empty) {
    throw InputError(fmt::format(
        "tensor {}: shape {} has more than 2^63 elements",
        quote(name),
        shape_text()));
  }
  return empty ? 0 : count;
}

uint64_t TensorInfo::bytes() const {
  const auto count = static_cast<uint64_t>(numel());
  const auto bits = static_cast<uint64_t>(dtype_bits(dtype));
  uint64_t total = 0;
  if (__builtin_mul_overflow(count, bits, &total)) {
    throw InputError(fmt::format(
        "tensor {}: shape {} of {} has more than 2^61 bytes",
        quote(name),
        shape_text(),
        dtype_name(dtype)));
  }
  if (total % 8 != 0) {
    throw InputError(fmt::format(
        "tensor {}: shape {} of {} is not a whole number of bytes",
        quote(name),
        shape_text(),
        dtype_name(dtype)));
  }
  return total / 8;
}

std::string TensorInfo::shape_text() const {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

} // namespace merganser
