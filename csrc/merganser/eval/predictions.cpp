#include "merganser/eval/predictions.h"

#include <span>

#include "merganser/io/safetensors.h"

namespace merganser {
namespace {

std::string labels_of(const std::string& set) {
  return set + ".labels";
}

} // namespace

void save_predictions(
    const std::filesystem::path& file,
    const std::vector<Predictions>& sets) {
  std::vector<TensorInfo> tensors;
  for (const Predictions& set : sets) {
    const auto examples = static_cast<int64_t>(set.labels.size());
    const auto classes = static_cast<int64_t>(set.classes());
    tensors.push_back({set.set, DType::kF32, {examples, classes}});
    tensors.push_back({labels_of(set.set), DType::kI64, {examples}});
  }
  SafetensorsWriter writer(file, std::move(tensors));
  for (const Predictions& set : sets) {
    writer.write(set.set, std::as_bytes(std::span(set.probabilities)));
    writer.write(labels_of(set.set), std::as_bytes(std::span(set.labels)));
  }
  writer.finish();
}

std::vector<Predictions> load_predictions(
    const std::filesystem::path& file,
    const std::vector<std::string>& sets) {
  const SafetensorsFile in(file);
  std::vector<Predictions> loaded;
  for (const std::string& set : sets) {
    Predictions part{.set = set, .probabilities = {}, .labels = {}};
    part.probabilities.resize(in.at(set).info().numel());
    part.labels.resize(in.at(labels_of(set)).info().numel());
    in.read(set, std::as_writable_bytes(std::span(part.probabilities)));
    in.read(labels_of(set), std::as_writable_bytes(std::span(part.labels)));
    loaded.push_back(std::move(part));
  }
  return loaded;
}

} // namespace merganser
