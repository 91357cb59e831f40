#include "merganser/train/metrics.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "merganser/base/error.h"
#include "merganser/base/json_text.h"
#include "merganser/io/durable.h"

namespace merganser {

using Json = nlohmann::ordered_json;

Json epoch_to_json(const EpochMetrics& epoch) {
  Json json = {{"epoch", epoch.epoch}, {"step", epoch.step}};
  if (epoch.linearized) {
    json["linearized"] = true;
  }
  json["train_loss"] = epoch.train_loss;
  json["eval"] = Json::array();
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
  epoch.linearized = json.value("linearized", false);
  epoch.train_loss = json.at("train_loss");
  for (const Json& eval : json.at("eval")) {
    epoch.eval.push_back(
        {eval.at("file"), eval.at("accuracy"), eval.at("loss")});
  }
  return epoch;
}

MetricsFile::MetricsFile(std::filesystem::path path, uint64_t bytes)
    : path_(std::move(path)) {
  if (bytes > 0) {
    std::error_code failed;
    const uint64_t size = std::filesystem::file_size(path_, failed);
    if (failed || size < bytes) {
      throw InputError(fmt::format(
          "{} is shorter than its checkpoint says; delete its directory to "
          "start again",
          path_.string()));
    }
    std::filesystem::resize_file(path_, bytes);
  }
  out_.open(
      path_, std::ios::binary | (bytes > 0 ? std::ios::app : std::ios::trunc));
  flush();
}

void MetricsFile::write(const StepMetrics& metrics) {
  Json json = {
      {"epoch", metrics.epoch},
      {"step", metrics.step},
      {"examples", metrics.examples},
      {"loss", metrics.loss}};
  if (metrics.penalty) {
    json["penalty"] = *metrics.penalty;
  }
  json["learning_rate"] = metrics.learning_rate;
  json["gradient_norm"] = metrics.gradient_norm;
  line(json_text(json));
}

void MetricsFile::write(const EpochMetrics& metrics) {
  line(json_text(epoch_to_json(metrics)));
}

uint64_t MetricsFile::sync() {
  sync_to_disk(path_);
  return static_cast<uint64_t>(out_.tellp());
}

void MetricsFile::line(const std::string& json) {
  out_ << json << '\n';
  flush();
}

void MetricsFile::flush() {
  out_.flush();
  if (!out_) {
    throw Error(fmt::format(
        "cannot write {}: is the disk full or the directory read-only?",
        path_.string()));
  }
}

} // namespace merganser
