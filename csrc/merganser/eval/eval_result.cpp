#include "merganser/eval/eval_result.h"

#include <nlohmann/json.hpp>

namespace merganser {

nlohmann::ordered_json to_json(const EvalResult& result) {
  return {
      {"examples", result.examples},
      {"accuracy", result.accuracy},
      {"loss", result.loss},
      {"calibration_error", result.calibration_error}};
}

EvalResult eval_result_from_json(const nlohmann::ordered_json& json) {
  return {
      json.at("examples"),
      json.at("accuracy"),
      json.at("loss"),
      json.at("calibration_error")};
}

} // namespace merganser
