#include "merganser/fisher/result.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "merganser/base/error.h"
#include "merganser/io/fisher_file.h"
#include "merganser/io/safetensors.h"

namespace merganser {

void FisherResult::save(const std::filesystem::path& file) const {
  std::vector<TensorInfo> tensors;
  for (const auto& [name, values] : diagonal) {
    if (!values.isfinite().all().item<bool>()) {
      throw Error(fmt::format(
          "the Fisher of {} is not finite, so {} was not written; check that "
          "the model's outputs are finite",
          name,
          file.string()));
    }
    tensors.push_back({name, DType::kF32, values.sizes().vec()});
  }
  const FisherMetadata metadata{
      .estimator = estimator,
      .num_examples = num_examples,
      .num_examples_used = num_examples_used,
      .samples = samples,
      .seed = seed,
      .labels = labels,
      .base_model_hash = model_hash};
  SafetensorsWriter writer(file, std::move(tensors), metadata.to_metadata());
  for (const auto& [name, values] : diagonal) {
    const at::Tensor flat = values.to(at::kCPU, at::kFloat).contiguous();
    writer.write(
        name,
        std::as_bytes(std::span(
            flat.data_ptr<float>(), static_cast<size_t>(flat.numel()))));
  }
  writer.finish();
}

} // namespace merganser
