#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/base/progress.h"
#include "merganser/train/schedule.h"

namespace merganser {

enum class TrainingFisher { kNone, kAdam, kOnlineMc };
MERGANSER_API TrainingFisher parse_training_fisher(const std::string& name);
MERGANSER_API std::string training_fisher_name(TrainingFisher fisher);

// Of epochs, batch sizes and the like: products of them, numbers of steps and
// of examples, stay far within int64.
constexpr int64_t kMaxCount = 1'000'000;

struct TrainOptions {
  std::filesystem::path model; // model directory to start from
  std::vector<std::filesystem::path> train; // concatenated
  std::vector<std::filesystem::path> eval; // after every epoch
  std::filesystem::path out;
  double epochs = 1;
  int64_t max_steps = -1; // >= 1 replaces epochs; -1: as epochs say
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
  TrainingFisher fisher = TrainingFisher::kNone;
  int64_t fisher_interval = 4; // online_mc: an extra backward every k-th step
  std::optional<std::filesystem::path> proximal; // H_0 = N_0 F_0 of this file
  double proximal_weight = 1.0;
  int64_t checkpoint_steps = 0; // 0: at the end of every epoch
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
};

struct MERGANSER_API TrainResult {
  std::filesystem::path out;
  int64_t steps = 0;
  int64_t examples = 0;
  double seconds = 0; // of this call, loading included
  std::vector<EpochMetrics> epochs;
  std::vector<std::string> new_parameters; // not in options.model: a new head
  int64_t model_epoch = 0; // whose model was kept, from 1
  std::optional<std::filesystem::path> fisher; // the file, if one was asked for

  std::string to_text() const; // for people, with a newline at its end
  std::string to_json() const; // the same for machines
};

// Fine-tunes and leaves in options.out: the model (Hugging Face directory),
// metrics.jsonl, and fisher.safetensors if asked for.
//
// The model is that of the last epoch; with files to evaluate on and no Fisher
// it is that of the epoch with the highest mean accuracy, the first of equals.
// A Fisher belongs to the end of training, so that it comes with the last.
//
// While it runs, out's sibling "<out>.partial" holds the last checkpoint;
// called again with the same options and data, it goes on from there and ends
// with the same bits as a run that was never interrupted (on one machine, with
// one number of threads). Throws InputError for bad options or data, Error for
// what fails on the way (a loss that is not finite, a full disk), and
// Interrupted, after a checkpoint, on Ctrl-C.
MERGANSER_API TrainResult
train(const TrainOptions& options, const ProgressCallback& progress = {});

} // namespace merganser
