#include "merganser/train/train_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "merganser/base/error.h"

namespace merganser {
namespace {

constexpr std::pair<TrainingFisher, const char*> kFishers[] = {
    {TrainingFisher::kNone, "none"},
    {TrainingFisher::kAdam, "adam"},
    {TrainingFisher::kOnlineMc, "online_mc"},
    {TrainingFisher::kOnlineMcEval, "online_mc_eval"},
};

template <class T>
void expect(bool fine, const char* option, const char* wanted, const T& got) {
  if (!fine) {
    throw InputError(fmt::format("{} must be {}, got {}", option, wanted, got));
  }
}

bool not_negative(double value) {
  return std::isfinite(value) && value >= 0;
}

bool below(double limit, double value) {
  return value >= 0 && value < limit;
}

} // namespace

TrainingFisher parse_training_fisher(const std::string& name) {
  for (const auto& [fisher, known] : kFishers) {
    if (name == known) {
      return fisher;
    }
  }
  throw InputError(fmt::format(
      "unknown Fisher for training \"{}\"; expected none, adam, online_mc or "
      "online_mc_eval",
      name));
}

std::string training_fisher_name(TrainingFisher fisher) {
  for (const auto& [known, name] : kFishers) {
    if (fisher == known) {
      return name;
    }
  }
  return "none";
}

// The first-order model is one of a deterministic function, and a Fisher of it
// is not that of the ordinary model that is saved.
void check_linearized(const TrainOptions& o) {
  if (!o.linearized) {
    return;
  }
  if (o.dropout.value_or(0) > 0) {
    throw InputError(fmt::format(
        "linearized training has no dropout: dropout must be 0, got {}",
        *o.dropout));
  }
  if (o.fisher != TrainingFisher::kNone) {
    throw InputError(fmt::format(
        "linearized training collects no Fisher, got {}: estimate that of the "
        "saved model with merganser fisher",
        training_fisher_name(o.fisher)));
  }
}

void check_options(const TrainOptions& o, const EncoderConfig& config) {
  if (o.train.empty()) {
    throw InputError("no training data: give at least one file");
  }
  expect(
      o.epochs > 0 && o.epochs <= kMaxCount,
      "epochs",
      "greater than 0 and at most 1000000",
      o.epochs);
  expect(
      (o.max_steps >= 1 && o.max_steps <= kMaxCount * kMaxCount) ||
          o.max_steps == -1,
      "max-steps",
      "between 1 and 1e12, or -1 to train by epochs",
      o.max_steps);
  expect(
      o.num_labels == 0 || o.num_labels >= 2,
      "num-labels",
      "at least 2, or 0 for the number in config.json",
      o.num_labels);
  expect(not_negative(o.learning_rate), "lr", "at least 0", o.learning_rate);
  expect(
      o.batch_size >= 1 && o.batch_size <= kMaxCount,
      "batch-size",
      "between 1 and 1000000",
      o.batch_size);
  expect(
      o.accumulate >= 1 && o.accumulate <= kMaxCount,
      "accumulate",
      "between 1 and 1000000",
      o.accumulate);
  expect(o.max_length >= 2, "max-length", "at least 2", o.max_length);
  if (o.max_length > config.max_length()) {
    throw InputError(fmt::format(
        "max-length {} exceeds the maximum of {} tokens of {}",
        o.max_length,
        config.max_length(),
        o.model.string()));
  }
  expect(
      not_negative(o.warmup) && o.warmup <= 1e15,
      "warmup",
      "between 0 and 1e15",
      o.warmup);
  expect(
      not_negative(o.weight_decay),
      "weight-decay",
      "at least 0",
      o.weight_decay);
  expect(below(1, o.beta1), "beta1", "in [0, 1)", o.beta1);
  expect(below(1, o.beta2), "beta2", "in [0, 1)", o.beta2);
  expect(
      not_negative(o.epsilon) && o.epsilon > 0,
      "epsilon",
      "greater than 0",
      o.epsilon);
  expect(not_negative(o.clip), "clip", "at least 0", o.clip);
  if (o.dropout) {
    expect(
        below(EncoderConfig::kDropoutLimit, *o.dropout),
        "dropout",
        "in [0, 0.999)",
        *o.dropout);
  }
  check_linearized(o);
  expect(
      o.fisher_interval >= 1,
      "fisher-interval",
      "at least 1",
      o.fisher_interval);
  for (size_t i = 0; i < o.proximal.size(); ++i) {
    if (std::ranges::count(o.proximal, o.proximal[i]) > 1) {
      throw InputError(
          fmt::format("proximal: {} is given twice", o.proximal[i].string()));
    }
  }
  expect(
      not_negative(o.proximal_weight),
      "proximal-weight",
      "at least 0",
      o.proximal_weight);
  expect(
      o.checkpoint_steps >= 0,
      "checkpoint-steps",
      "at least 0",
      o.checkpoint_steps);
}

} // namespace merganser
