#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>

namespace merganser {

struct EvalResult {
  int64_t examples = 0;
  double accuracy = 0; // in [0, 1]
  double loss = 0; // mean negative log-likelihood, nats
  // Expected calibration error of the most probable label, see score().
  double calibration_error = 0;
};

nlohmann::ordered_json to_json(const EvalResult& result);
EvalResult eval_result_from_json(const nlohmann::ordered_json& json);

} // namespace merganser
