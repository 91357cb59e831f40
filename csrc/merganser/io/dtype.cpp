#include "merganser/io/dtype.h"

#include <array>

#include <fmt/format.h>

#include "merganser/base/error.h"
#include "merganser/base/quote.h"

namespace merganser {

namespace {

struct Row {
  DType dtype;
  std::string_view name;
  int bits;
};

constexpr std::array kRows = {
    Row{DType::kBool, "BOOL", 8},
    Row{DType::kF4, "F4", 4},
    Row{DType::kF6E2M3, "F6_E2M3", 6},
    Row{DType::kF6E3M2, "F6_E3M2", 6},
    Row{DType::kU8, "U8", 8},
    Row{DType::kI8, "I8", 8},
    Row{DType::kF8E5M2, "F8_E5M2", 8},
    Row{DType::kF8E4M3, "F8_E4M3", 8},
    Row{DType::kF8E8M0, "F8_E8M0", 8},
    Row{DType::kF8E4M3FNUZ, "F8_E4M3FNUZ", 8},
    Row{DType::kF8E5M2FNUZ, "F8_E5M2FNUZ", 8},
    Row{DType::kI16, "I16", 16},
    Row{DType::kU16, "U16", 16},
    Row{DType::kF16, "F16", 16},
    Row{DType::kBF16, "BF16", 16},
    Row{DType::kI32, "I32", 32},
    Row{DType::kU32, "U32", 32},
    Row{DType::kF32, "F32", 32},
    Row{DType::kC64, "C64", 64},
    Row{DType::kF64, "F64", 64},
    Row{DType::kI64, "I64", 64},
    Row{DType::kU64, "U64", 64},
};

constexpr bool rows_follow_enum() {
  for (size_t i = 0; i < kRows.size(); ++i) {
    if (static_cast<size_t>(kRows[i].dtype) != i) {
      return false;
    }
  }
  return true;
}
static_assert(rows_follow_enum());

const Row& row(DType dtype) {
  return kRows[static_cast<size_t>(dtype)];
}

} // namespace

int dtype_bits(DType dtype) {
  return row(dtype).bits;
}

std::string_view dtype_name(DType dtype) {
  return row(dtype).name;
}

std::optional<DType> find_dtype(std::string_view name) {
  for (const Row& r : kRows) {
    if (r.name == name) {
      return r.dtype;
    }
  }
  return std::nullopt;
}

DType parse_dtype(std::string_view name) {
  if (const auto dtype = find_dtype(name)) {
    return *dtype;
  }
  std::string known;
  for (const Row& r : kRows) {
    known += known.empty() ? "" : ", ";
    known += r.name;
  }
  throw InputError(
      fmt::format("unknown dtype {}; available: {}", quote(name), known));
}

bool is_mergeable(DType dtype) {
  return dtype == DType::kF16 || dtype == DType::kBF16 ||
      dtype == DType::kF32 || dtype == DType::kF64;
}

} // namespace merganser
