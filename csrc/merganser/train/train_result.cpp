#include "merganser/train/train_result.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

#include "merganser/base/json_text.h"

namespace merganser {

std::string TrainResult::to_text() const {
  std::string text;
  if (!new_parameters.empty()) {
    text += fmt::format(
        "new parameters, randomly initialized: {}\n",
        fmt::join(new_parameters, ", "));
  }
  for (const EpochMetrics& epoch : epochs) {
    text += fmt::format(
        "epoch {}: step {}, training loss {:.4f}{}\n",
        epoch.epoch,
        epoch.step,
        epoch.train_loss,
        epoch.linearized ? " (first-order model)" : "");
    for (const EpochEval& result : epoch.eval) {
      text += fmt::format(
          "  {}: accuracy {:.2f} %, loss {:.4f}\n",
          result.file,
          100 * result.accuracy,
          result.loss);
    }
  }
  text += fmt::format(
      "{}: model of epoch {}, {} steps in {:.0f} s\n",
      out.string(),
      model_epoch,
      steps,
      seconds);
  if (fisher) {
    text += fmt::format("{}: Fisher of that model\n", fisher->string());
  }
  return text;
}

std::string TrainResult::to_json() const {
  nlohmann::ordered_json json = {
      {"out", out.string()},
      {"steps", steps},
      {"examples", examples},
      {"seconds", seconds},
      {"model_epoch", model_epoch},
      {"new_parameters", new_parameters},
      {"fisher", nullptr},
      {"epochs", nlohmann::ordered_json::array()}};
  if (fisher) {
    json["fisher"] = fisher->string();
  }
  for (const EpochMetrics& epoch : epochs) {
    json["epochs"].push_back(epoch_to_json(epoch));
  }
  return json_text(json, 2);
}

} // namespace merganser
