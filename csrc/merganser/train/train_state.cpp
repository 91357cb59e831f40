#include "merganser/train/train_state.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "merganser/base/error.h"
#include "merganser/base/json_text.h"
#include "merganser/io/safetensors.h"

namespace merganser {
namespace {

using Json = nlohmann::ordered_json;

std::span<std::byte> bytes_of(const at::Tensor& flat) {
  return {static_cast<std::byte*>(flat.data_ptr()), flat.nbytes()};
}

Json to_json(const TrainState& state) {
  Json json = {
      {"step", state.step},
      {"examples", state.examples},
      {"epoch_loss", state.epoch_loss},
      {"epoch_examples", state.epoch_examples},
      {"fisher_examples", state.fisher_examples},
      {"best_epoch", state.best_epoch},
      {"best_accuracy", state.best_accuracy},
      {"metrics_bytes", state.metrics_bytes},
      {"epochs", Json::array()}};
  for (const EpochMetrics& epoch : state.epochs) {
    json["epochs"].push_back(epoch_to_json(epoch));
  }
  return json;
}

TrainState to_state(const Json& json) {
  TrainState state;
  json.at("step").get_to(state.step);
  json.at("examples").get_to(state.examples);
  json.at("epoch_loss").get_to(state.epoch_loss);
  json.at("epoch_examples").get_to(state.epoch_examples);
  json.at("fisher_examples").get_to(state.fisher_examples);
  json.at("best_epoch").get_to(state.best_epoch);
  json.at("best_accuracy").get_to(state.best_accuracy);
  json.at("metrics_bytes").get_to(state.metrics_bytes);
  for (const Json& epoch : json.at("epochs")) {
    state.epochs.push_back(epoch_from_json(epoch));
  }
  return state;
}

Json metadata_entry(const SafetensorsFile& file, const char* key) {
  const auto found = file.metadata().find(key);
  const Json value = found == file.metadata().end()
      ? Json()
      : parse_json_or_discard(found->second);
  if (!value.is_object()) {
    throw InputError(fmt::format(
        "{} is not a training checkpoint; delete its directory to start again",
        file.path().string()));
  }
  return value;
}

} // namespace

void save_arrays(
    const std::filesystem::path& file,
    const FlatArrays& arrays,
    const Metadata& metadata) {
  std::vector<TensorInfo> tensors;
  for (const auto& [name, flat] : arrays) {
    tensors.push_back({name, DType::kF32, {flat.numel()}});
  }
  SafetensorsWriter writer(file, std::move(tensors), metadata);
  for (const auto& [name, flat] : arrays) {
    writer.write(name, bytes_of(flat));
  }
  writer.finish();
}

void load_arrays(const SafetensorsFile& file, const FlatArrays& arrays) {
  for (const auto& [name, flat] : arrays) {
    file.read(name, bytes_of(flat));
  }
}

void save_state(
    const std::filesystem::path& file,
    const TrainState& state,
    const std::string& fingerprint,
    const FlatArrays& arrays) {
  save_arrays(
      file,
      arrays,
      {{"state", json_text(to_json(state))}, {"fingerprint", fingerprint}});
}

void check_same_run(
    const SafetensorsFile& file,
    const std::string& fingerprint) {
  const Json before = metadata_entry(file, "fingerprint");
  const Json now = parse_json(fingerprint);
  for (const auto& [name, value] : now.items()) {
    const Json then = before.value(name, Json());
    if (then != value) {
      throw InputError(fmt::format(
          "{} holds a run begun with {} = {}, but this run has {}; use the "
          "same value to resume it, or delete that directory to start again",
          file.path().parent_path().string(),
          name,
          json_text(then),
          json_text(value)));
    }
  }
}

TrainState load_state(
    const std::filesystem::path& file,
    const std::string& fingerprint,
    const FlatArrays& arrays) {
  const SafetensorsFile in(file);
  check_same_run(in, fingerprint);
  load_arrays(in, arrays);
  return to_state(metadata_entry(in, "state"));
}

} // namespace merganser
