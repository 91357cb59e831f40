#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/objective/refine_options.h"

namespace merganser {

// An evaluated step. The objectives are divided by sum_t a_t N_t; NaN and
// infinity are null in JSON, and NaN when they are read.
struct RefineStep {
  int64_t step = 0; // 0: the start
  double objective = 0; // on the training examples
  double held_out = 0; // on the held-out examples
  double held_out_loss = 0; // the same without the proximal term
  // The solver's choice: the learning rate (adamw) or the damping.
  double setting = 0;
  int64_t rejected = 0; // trials since the row before that were rejected
  int64_t not_finite = 0; // of these, trials that were not finite
};

MERGANSER_API nlohmann::ordered_json to_json(const RefineStep& step);
MERGANSER_API RefineStep
refine_step_from_json(const nlohmann::ordered_json& json);

struct MERGANSER_API RefineResult {
  RefineOptions options;
  std::vector<int64_t> num_examples; // per task: N_t
  std::vector<int64_t> num_examples_used; // held-out ones included
  std::vector<int64_t> num_examples_held_out;
  std::vector<RefineStep> steps;
  size_t kept = 0; // position in `steps`: the lowest held-out objective
  bool completed = true; // false: interrupted
  std::optional<std::string> stopped = {}; // why before the last step
  double seconds = 0;

  std::string to_text() const;
  std::string to_json() const; // refine.json
};

} // namespace merganser
