#include "merganser/fisher/result.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "merganser/base/error.h"
#include "merganser/io/checkpoint.h"

namespace merganser {

void write_fisher_file(
    const std::filesystem::path& file,
    const std::vector<std::pair<std::string, at::Tensor>>& tensors,
    const FisherMetadata& metadata) {
  std::vector<TensorInfo> infos;
  std::vector<at::Tensor> rounded;
  for (const auto& [name, values] : tensors) {
    rounded.push_back(values.to(at::kCPU, at::kFloat).contiguous());
    if (!rounded.back().isfinite().all().item<bool>()) {
      throw Error(fmt::format(
          "the {} of {} is not finite, so {} was not written; check that "
          "the model's outputs are finite",
          metadata.estimator == kGramEstimator ? "Gram matrix" : "Fisher",
          name,
          file.string()));
    }
    infos.push_back({name, DType::kF32, values.sizes().vec()});
  }
  SafetensorsWriter writer(file, std::move(infos), metadata.to_metadata());
  for (size_t i = 0; i < rounded.size(); ++i) {
    const at::Tensor& flat = rounded[i];
    writer.write(
        tensors[i].first,
        std::as_bytes(std::span(
            flat.data_ptr<float>(), static_cast<size_t>(flat.numel()))));
  }
  writer.finish();
}

void FisherResult::save(const std::filesystem::path& file) const {
  write_fisher_file(file, diagonal, metadata());
}

FisherMetadata FisherResult::metadata() const {
  return {
      .estimator = estimator,
      .num_examples = num_examples,
      .num_examples_used = num_examples_used,
      .samples = samples,
      .seed = seed,
      .labels = labels,
      .base_model_hash = model_hash,
      .task_vector = task_vector};
}

FisherResult FisherResult::load(const std::filesystem::path& path) {
  const Checkpoint file(path);
  const auto metadata = FisherMetadata::parse(file.metadata(), path);
  if (!metadata) {
    throw InputError(fmt::format(
        "{}: not a Fisher file of merganser: its metadata lacks "
        "'format_version'",
        path.string()));
  }
  FisherResult result{
      .diagonal = {},
      .estimator = metadata->estimator,
      .num_examples = metadata->num_examples,
      .num_examples_used = metadata->num_examples_used,
      .samples = metadata->samples,
      .seed = metadata->seed,
      .labels = metadata->labels,
      .model_hash = metadata->base_model_hash,
      .task_vector = metadata->task_vector};
  for (const TensorInfo& info : file.tensors()) {
    if (info.dtype != DType::kF32) {
      throw InputError(fmt::format(
          "{}: tensor '{}' is {}; expected F32",
          path.string(),
          info.name,
          dtype_name(info.dtype)));
    }
    at::Tensor values = at::empty(info.shape, at::kFloat);
    file.read(
        info.name,
        {static_cast<std::byte*>(values.data_ptr()), values.nbytes()});
    result.diagonal.emplace_back(info.name, std::move(values));
  }
  return result;
}

} // namespace merganser
