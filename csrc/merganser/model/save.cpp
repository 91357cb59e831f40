#include <ATen/ATen.h>

#include "merganser/io/atomic_file.h"
#include "merganser/io/checkpoint.h"
#include "merganser/io/model_dir.h"
#include "merganser/io/sentence_modules.h"
#include "merganser/model/encoder.h"

namespace merganser {

void save_encoder(
    const Encoder& model,
    const std::filesystem::path& source,
    const std::filesystem::path& folder) {
  const ModelDir directory(source);
  directory.copy_without_weights(folder);
  for (const std::filesystem::path& module : modules_with_weights(source)) {
    const std::filesystem::path file = module / "model.safetensors";
    std::filesystem::create_directories(folder / module);
    write_file(folder / file, read_file(source / file)); // not trained
  }
  write_file(
      folder / "config.json", model->config().to_json(directory.config_text()));

  const auto parameters = model->named_parameters();
  std::vector<TensorInfo> tensors;
  for (const auto& item : parameters) {
    tensors.push_back({item.key(), DType::kF32, item.value().sizes().vec()});
  }
  // transformers requires the key "format".
  CheckpointWriter writer(folder, tensors, {{"format", "pt"}});
  for (const auto& item : parameters) {
    const at::Tensor values =
        item.value().detach().to(at::kCPU, at::kFloat).contiguous();
    writer.write(
        item.key(),
        std::as_bytes(std::span(
            values.data_ptr<float>(), static_cast<size_t>(values.numel()))));
  }
  writer.finish();
}

} // namespace merganser
