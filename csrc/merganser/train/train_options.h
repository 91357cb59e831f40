#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/io/fisher_file.h"
#include "merganser/model/config.h"
#include "merganser/train/schedule.h"

namespace merganser {

enum class TrainingFisher { kNone, kAdam, kOnlineMc, kOnlineMcEval };
MERGANSER_API TrainingFisher parse_training_fisher(const std::string& name);
MERGANSER_API std::string training_fisher_name(TrainingFisher fisher);

// Limit of epochs, batch sizes and similar counts: their products (steps,
// examples) stay far within int64.
constexpr int64_t kMaxCount = 1'000'000;

struct TrainOptions {
  std::filesystem::path model; // model directory to start from
  std::vector<std::filesystem::path> train; // concatenated
  std::vector<std::filesystem::path> eval; // evaluated after every epoch
  std::filesystem::path out;
  double epochs = 1;
  int64_t max_steps = -1; // >= 1 replaces epochs; -1: by epochs
  double learning_rate = 2e-5;
  int64_t batch_size = 32; // examples per forward pass
  int64_t accumulate = 1; // forward passes per step
  int64_t max_length = 128;
  int64_t num_labels = 0; // 0: from config.json
  uint64_t seed = 0;
  bool bfloat16 = false;
  Schedule schedule = Schedule::kLinear;
  double warmup = 0.06; // < 1: share of the steps; otherwise steps
  double weight_decay = 0.01;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double clip = 1.0; // gradient norm; 0: none
  std::optional<double> dropout; // replaces all of config.json's
  bool linearized = false; // trains the first-order model, without dropout
  TrainingFisher fisher = TrainingFisher::kNone;
  int64_t fisher_interval = 4; // online_mc, online_mc_eval: every k-th step
  FisherStorage fisher_storage = FisherStorage::kFloat32; // of its file
  std::vector<std::filesystem::path> proximal; // H_0 = sum of N F of the files
  double proximal_weight = 1.0;
  int64_t checkpoint_steps = 0; // 0: at the end of every epoch
};

// Throws InputError naming an option whose value is invalid, on its own or for
// a model of this configuration.
MERGANSER_API void check_options(
    const TrainOptions& options,
    const EncoderConfig& config);
// The part of it about linearized training.
MERGANSER_API void check_linearized(const TrainOptions& options);

} // namespace merganser
