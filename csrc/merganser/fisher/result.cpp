#include "merganser/fisher/result.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "merganser/base/error.h"
#include "merganser/io/checkpoint.h"
#include "merganser/io/factored_tensor.h"

namespace merganser {
namespace {

at::Tensor as_stored(const at::Tensor& values, at::ScalarType type) {
  return values.to(at::kCPU, type).contiguous();
}

// True if the means of rows and columns are fewer than the values.
bool is_smaller_factored(const at::Tensor& values) {
  return values.dim() >= 2 &&
      values.size(-2) + values.size(-1) < values.size(-2) * values.size(-1);
}

} // namespace

NamedTensors stored_tensors(
    const std::string& name,
    const at::Tensor& values,
    FisherStorage storage) {
  if (storage != FisherStorage::kFactored) {
    const bool narrow = storage == FisherStorage::kBFloat16;
    return {{name, as_stored(values, narrow ? at::kBFloat16 : at::kFloat)}};
  }
  if (name.ends_with(kRowMeans) || name.ends_with(kColumnMeans)) {
    throw InputError(fmt::format(
        "cannot store the Fisher of tensor {} factored: its name ends as those "
        "of factors do; choose another storage",
        name));
  }
  if (values.lt(0).any().item<bool>()) {
    throw InputError(fmt::format(
        "cannot store the Fisher of tensor {} factored: it has negative values",
        name));
  }
  if (!is_smaller_factored(values)) {
    return {{name, as_stored(values, at::kFloat)}};
  }
  const auto means = [&](int64_t dimension) {
    return as_stored(
        values.mean(at::IntArrayRef(dimension), /*keepdim=*/false, at::kDouble),
        at::kFloat);
  };
  return {{name + kRowMeans, means(-1)}, {name + kColumnMeans, means(-2)}};
}

void write_fisher_file(
    const std::filesystem::path& file,
    const NamedTensors& tensors,
    const FisherMetadata& metadata) {
  NamedTensors stored;
  for (const auto& [name, values] : tensors) {
    for (auto& part : stored_tensors(name, values, metadata.storage)) {
      stored.push_back(std::move(part));
    }
  }
  std::vector<TensorInfo> infos;
  for (const auto& [name, values] : stored) {
    if (!values.isfinite().all().item<bool>()) {
      throw Error(fmt::format(
          "the {} of {} is not finite{}, so {} was not written; check that "
          "the model's outputs are finite",
          metadata.estimator == kGramEstimator ? "Gram matrix" : "Fisher",
          name,
          metadata.storage == FisherStorage::kFloat32
              ? ""
              : fmt::format(" in {}", storage_name(metadata.storage)),
          file.string()));
    }
    const bool narrow = values.scalar_type() == at::kBFloat16;
    infos.push_back(
        {name, narrow ? DType::kBF16 : DType::kF32, values.sizes().vec()});
  }
  SafetensorsWriter writer(file, std::move(infos), metadata.to_metadata());
  for (const auto& [name, values] : stored) {
    writer.write(
        name,
        {static_cast<const std::byte*>(values.const_data_ptr()),
         values.nbytes()});
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
      .at = at,
      .task_vector = task_vector,
      .scale = scale,
      .storage = storage};
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
      .at = metadata->at,
      .task_vector = metadata->task_vector,
      .scale = metadata->scale,
      .storage = metadata->storage};
  for (const TensorInfo& info : file.tensors()) {
    at::Tensor values = at::empty(info.shape, at::kFloat);
    read_fisher_values(
        file.at(info.name),
        std::span(
            values.data_ptr<float>(), static_cast<size_t>(values.numel())));
    result.diagonal.emplace_back(info.name, std::move(values));
  }
  return result;
}

} // namespace merganser
