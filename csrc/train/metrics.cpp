#include "train/metrics.h"

#include <fmt/format.h>

#include "io/error.h"
#include "train/epoch_json.h"

namespace merganser {

using Json = nlohmann::ordered_json;

MetricsFile::MetricsFile(std::filesystem::path path, uint64_t bytes)
    : path_(std::move(path)) {
  if (bytes == 0) {
    out_.open(path_, std::ios::binary | std::ios::trunc);
  } else {
    std::error_code failed;
    std::filesystem::resize_file(path_, bytes, failed);
    if (failed) {
      throw Error(fmt::format(
          "cannot go on writing {}: {}", path_.string(), failed.message()));
    }
    out_.open(path_, std::ios::binary | std::ios::app);
  }
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
  line(json.dump());
}

void MetricsFile::write(const EpochMetrics& metrics) {
  line(epoch_to_json(metrics).dump());
}

uint64_t MetricsFile::flush() {
  out_.flush();
  if (!out_) {
    throw Error(fmt::format(
        "cannot write {}: is the disk full, or the folder read-only?",
        path_.string()));
  }
  return static_cast<uint64_t>(out_.tellp());
}

void MetricsFile::line(const std::string& json) {
  out_ << json << '\n';
}

} // namespace merganser
