#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "merganser/base/api.h"

namespace merganser {

struct SearchOptions {
  std::filesystem::path recipe;
  std::vector<std::string> over; // see parse_search_space
  std::vector<std::filesystem::path> data; // labelled, for validation
  std::filesystem::path out; // directory of the journal and the best recipe
  int64_t trials = 60; // after the recipe's own values
  bool by_loss = true; // else by accuracy; means over the data files
  int64_t limit = -1; // examples per file, drawn by `seed`; -1: all
  uint64_t seed = 0;
  int64_t batch_size = 32;
  int64_t max_length = 128;
  bool bfloat16 = false;
};

// True for "loss", false for "accuracy"; otherwise throws InputError.
MERGANSER_API bool parse_by_loss(const std::string& name);

// Throws InputError for numbers out of range.
void check_options(const SearchOptions& options);

} // namespace merganser
