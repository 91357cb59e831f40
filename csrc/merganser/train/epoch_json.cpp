#include "merganser/train/epoch_json.h"

namespace merganser {

using Json = nlohmann::ordered_json;

Json epoch_to_json(const EpochMetrics& epoch) {
  Json json = {
      {"epoch", epoch.epoch},
      {"step", epoch.step},
      {"train_loss", epoch.train_loss},
      {"eval", Json::array()}};
  for (const EpochEval& eval : epoch.eval) {
    json["eval"].push_back(
        {{"file", eval.file},
         {"accuracy", eval.accuracy},
         {"loss", eval.loss}});
  }
  return json;
}

EpochMetrics epoch_from_json(const Json& json) {
  EpochMetrics epoch;
  epoch.epoch = json.at("epoch");
  epoch.step = json.at("step");
  epoch.train_loss = json.at("train_loss");
  for (const Json& eval : json.at("eval")) {
    epoch.eval.push_back(
        {eval.at("file"), eval.at("accuracy"), eval.at("loss")});
  }
  return epoch;
}

} // namespace merganser
