#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "merganser/model/compute_dtype.h"

namespace merganser::app {

// Options of every command that runs a model.

inline void add_dtype(CLI::App& parser, bool& bfloat16) {
  parser
      .add_option_function<std::string>(
          "--dtype",
          [&bfloat16](const std::string& name) {
            bfloat16 = parse_bfloat16(name);
          },
          "Type of matrix products: float32 or bfloat16; sums stay float32")
      ->default_str("float32");
}

inline void add_max_length(CLI::App& parser, int64_t& max_length) {
  parser
      .add_option(
          "--max-length", max_length, "Maximum tokens per example (truncates)")
      ->check(CLI::Range(2, 1 << 20))
      ->capture_default_str();
}

// Without the check, -1 would be taken for 2^64 - 1.
inline void add_seed(CLI::App& parser, uint64_t& seed, const char* help) {
  parser.add_option("--seed", seed, help)
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
}

inline void add_batch_size(CLI::App& parser, int64_t& batch_size) {
  parser.add_option("--batch-size", batch_size, "Examples per forward pass")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
}

} // namespace merganser::app
