#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/io/safetensors.h"

namespace merganser {

// The names of the two tensors that a factored one is stored as.
inline constexpr const char* kRowMeans = ".row_means";
inline constexpr const char* kColumnMeans = ".column_means";

// A tensor (..., rows, columns), one or more matrices, that is stored as the
// means r (..., rows) and c (..., columns) of their rows and columns:
// F_ij = r_i c_j / m, where m is the mean of r. Where m is 0, so is F. It is
// read as float32, in parts, which are computed when they are read. Source:
// Adafactor, Shazeer & Stern 2018, section 3.
class MERGANSER_API FactoredTensor {
 public:
  // Reads both factors. Throws InputError for factors that do not fit together,
  // are not F32, or have a value that is negative or not finite.
  FactoredTensor(
      const std::string& name,
      const StoredTensor& row_means,
      const StoredTensor& column_means);

  const TensorInfo& info() const { // of the whole tensor
    return info_;
  }
  const std::filesystem::path& file() const {
    return file_;
  }
  uint64_t stored_bytes() const;

  // Computes the elements from `begin` on, as float32; `out` may be unaligned.
  void read(std::span<std::byte> out, int64_t begin) const;

 private:
  std::filesystem::path file_;
  TensorInfo info_;
  std::vector<float> rows_; // r / m
  std::vector<float> columns_;
};

} // namespace merganser
