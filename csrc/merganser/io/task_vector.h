#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "merganser/base/api.h"

namespace merganser {

// A mean over examples and its standard error.
struct Estimate {
  double value = 0;
  double standard_error = 0;
};

// Losses along a task vector tau = theta_t - theta_0, or along its part in one
// group of parameters, per example.
struct AlongTaskVector {
  Estimate slope; // <tau, g>: g the expert's gradient, at the data's labels
  Estimate curvature; // tau^T F_0 tau with the base's exact Fisher
};

// Measures how far an expert is from a stationary point of its loss, which
// measured_gradient_matching needs; part of an expert's Fisher file.
// docs/method.md, "The expert's gradient".
struct MERGANSER_API TaskVectorStatistics {
  std::string base_model_hash; // Checkpoint::content_hash() of theta_0
  int64_t num_examples_used = 0; // of the expert's data
  int64_t base_num_examples_used = 0;
  AlongTaskVector total;
  // Groups of parameters, in the model's order; they do not sum to the total
  // curvature, which also has the products of two groups.
  std::vector<std::pair<std::string, AlongTaskVector>> groups;

  std::string to_json() const;
  // Throws InputError naming the file for a text that to_json did not write.
  static TaskVectorStatistics parse(
      const std::string& json,
      const std::filesystem::path& file);
};

} // namespace merganser
