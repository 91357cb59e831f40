#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "merganser/app/whole_number.h"
#include "merganser/io/fisher_file.h"
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

inline void add_storage(
    CLI::App& parser,
    const char* name,
    FisherStorage& storage) {
  parser
      .add_option_function<std::string>(
          name,
          [&storage](const std::string& text) {
            storage = parse_storage(text);
          },
          "Form of the Fisher's file: " + storage_names())
      ->default_str(std::string(storage_name(storage)));
}

inline void add_max_length(CLI::App& parser, int64_t& max_length) {
  parser
      .add_option(
          "--max-length", max_length, "Maximum tokens per example (truncates)")
      ->check(whole_number(2, 1 << 20))
      ->capture_default_str();
}

inline void add_limit(CLI::App& parser, int64_t& limit, const char* help) {
  parser.add_option("--limit", limit, help)->capture_default_str();
}

inline void add_seed(CLI::App& parser, uint64_t& seed, const char* help) {
  parser.add_option("--seed", seed, help)
      ->check(whole_number(0, UINT64_MAX))
      ->capture_default_str();
}

inline void add_batch_size(CLI::App& parser, int64_t& batch_size) {
  parser.add_option("--batch-size", batch_size, "Examples per forward pass")
      ->check(whole_number(1, 1 << 20))
      ->capture_default_str();
}

} // namespace merganser::app
