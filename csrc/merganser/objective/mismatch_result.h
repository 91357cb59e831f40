#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/objective/objective_options.h"

namespace merganser {

// Norms of a vector of parameters.
struct VectorNorms {
  double two = 0; // |v|_2
  // sqrt(sum v^2 / H_0) over the coordinates with H_0 > 0; none without H_0.
  std::optional<double> inverse_h0 = {};
};

// Norms of a mismatch m, of the part that the Fishers explain,
// sum_t a_t H_t (theta - theta_t), and of the rest, m - explained.
struct MismatchNorms {
  VectorNorms mismatch;
  std::optional<VectorNorms> explained =
      {}; // none without the experts' Fishers
  std::optional<VectorNorms> rest = {};
  // Share of |m|_2^2 on coordinates with H_0 = 0; none without H_0.
  std::optional<double> share_without_h0 = {};
};

struct MismatchRow {
  MismatchNorms all;
  std::vector<std::pair<std::string, MismatchNorms>> groups; // on request
};

// The two sides of theta* - theta_TA = -H_0^-1 m(theta*) for a target theta*,
// on the coordinates with H_0 > 0.
struct TargetIdentity {
  double left = 0; // |theta* - theta_TA|_2
  double right = 0; // |H_0^-1 m(theta*)|_2
  double difference = 0; // of the two sides
  double cosine = 0;
};

// m(theta) = sum_t a_t (gradient of l_t at theta - at theta_t) of one model.
struct ModelMismatch {
  std::filesystem::path model;
  std::vector<MismatchRow> tasks = {};
  MismatchRow total = {};
  std::optional<TargetIdentity> identity = {}; // of the target
};

struct MERGANSER_API MismatchResult {
  ObjectiveOptions options;
  std::vector<int64_t> num_examples; // per task: N_t
  std::vector<int64_t> num_examples_used;
  int64_t parameters = 0;
  std::optional<int64_t> without_h0; // parameters with H_0 = 0
  std::vector<ModelMismatch> models; // candidates, then the target

  std::string to_text() const;
  std::string to_json() const;
};

MERGANSER_API nlohmann::ordered_json mismatch_to_json(
    const ModelMismatch& mismatch,
    const std::vector<std::string>& tasks);

} // namespace merganser
