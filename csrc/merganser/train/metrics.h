#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "merganser/base/api.h"

namespace merganser {

struct StepMetrics {
  int64_t epoch = 0; // from 1
  int64_t step = 0; // from 1
  int64_t examples = 0; // in this step
  double loss = 0; // mean over the step's examples, before the update
  std::optional<double> penalty; // the proximal term, if any
  double learning_rate = 0;
  double gradient_norm = 0; // before clipping
};

struct EpochEval {
  std::string file;
  double accuracy = 0; // in [0, 1]
  double loss = 0; // mean negative log-likelihood, nats
};

struct EpochMetrics {
  int64_t epoch = 0; // from 1
  int64_t step = 0; // steps done by its end
  double train_loss = 0; // mean over the examples, each before its update
  std::vector<EpochEval> eval; // one per file of options.eval
  bool linearized = false; // losses and accuracies are the first-order model's
};

// An epoch's metrics as metrics.jsonl, checkpoints and reports hold them.
nlohmann::ordered_json epoch_to_json(const EpochMetrics& epoch);
EpochMetrics epoch_from_json(const nlohmann::ordered_json& json);

// Writes a line of JSON per step and per epoch. The lines hold no times, so
// that a resumed run writes the same file as an uninterrupted one.
class MERGANSER_API MetricsFile {
 public:
  // Appends after the first `bytes` bytes of the file. The rest, written after
  // the checkpoint that training resumes from, is removed.
  MetricsFile(std::filesystem::path path, uint64_t bytes);

  void write(const StepMetrics& metrics);
  void write(const EpochMetrics& metrics);

  // Flushes the file to disk and returns its size in bytes.
  uint64_t sync();

 private:
  void line(const std::string& json);
  void flush();

  std::filesystem::path path_;
  std::ofstream out_;
};

} // namespace merganser
