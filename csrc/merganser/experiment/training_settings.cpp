#include "merganser/experiment/training_settings.h"

#include <vector>

namespace merganser {

void parse_training(
    const YamlValue& mapping,
    std::initializer_list<std::string_view> others,
    TrainOptions& options) {
  std::vector<std::string_view> keys = others;
  keys.insert(
      keys.end(),
      {"epochs",
       "lr",
       "batch_size",
       "accumulate",
       "scheduler",
       "warmup",
       "weight_decay",
       "clip",
       "dropout",
       "linearized"});
  mapping.expect_keys(keys);
  if (const auto value = mapping.find("epochs")) {
    options.epochs = value->positive(kMaxCount);
  }
  if (const auto value = mapping.find("lr")) {
    options.learning_rate = value->number(0);
  }
  if (const auto value = mapping.find("batch_size")) {
    options.batch_size = value->integer(1, kMaxCount);
  }
  if (const auto value = mapping.find("accumulate")) {
    options.accumulate = value->integer(1, kMaxCount);
  }
  if (const auto value = mapping.find("scheduler")) {
    options.schedule = value->through(parse_schedule);
  }
  if (const auto value = mapping.find("warmup")) {
    options.warmup = value->number(0);
  }
  if (const auto value = mapping.find("weight_decay")) {
    options.weight_decay = value->number(0);
  }
  if (const auto value = mapping.find("clip")) {
    options.clip = value->number(0);
  }
  if (const auto value = mapping.find("dropout")) {
    options.dropout = value->number(0, 0.999);
  }
  if (const auto value = mapping.find("linearized")) {
    options.linearized = value->boolean();
  }
  try {
    check_linearized(options);
  } catch (const InputError& error) {
    mapping.fail(error.what());
  }
}

} // namespace merganser
