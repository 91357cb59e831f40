#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "io/checkpoint.h"
#include "io/error.h"
#include "io/model_dir.h"
#include "model/encoder.h"
#include "model/initialize.h"

namespace merganser {
namespace {

bool replace_suffix(
    std::string& name,
    std::string_view from,
    std::string_view to) {
  if (!name.ends_with(from)) {
    return false;
  }
  name.replace(name.size() - from.size(), from.size(), to);
  return true;
}

// The tensor of a parameter: under its own name, without the prefix of a bare
// encoder, or with the names that LayerNorm's parameters have in checkpoints
// converted from TensorFlow (bert-base-uncased).
const TensorInfo* find_tensor(
    const Checkpoint& checkpoint,
    const std::string& parameter) {
  std::vector<std::string> names = {parameter};
  for (const std::string_view prefix : {"bert.", "roberta."}) {
    if (parameter.starts_with(prefix)) {
      names.push_back(parameter.substr(prefix.size()));
    }
  }
  for (std::string name : names) {
    if (const TensorInfo* info = checkpoint.find(name)) {
      return info;
    }
    if (replace_suffix(name, "LayerNorm.weight", "LayerNorm.gamma") ||
        replace_suffix(name, "LayerNorm.bias", "LayerNorm.beta")) {
      if (const TensorInfo* info = checkpoint.find(name)) {
        return info;
      }
    }
  }
  return nullptr;
}

bool is_head(const std::string& parameter) {
  return parameter.starts_with("classifier.") ||
      parameter.starts_with("bert.pooler.");
}

void read_parameter(
    const Checkpoint& checkpoint,
    const TensorInfo& info,
    at::Tensor& parameter) {
  const auto expected = parameter.sizes().vec();
  if (info.shape != expected) {
    throw InputError(fmt::format(
        "{}: {} has shape [{}], but config.json asks for [{}]{}",
        checkpoint.file_of(info.name).string(),
        info.name,
        fmt::join(info.shape, ", "),
        fmt::join(expected, ", "),
        is_head(info.name) ? "; check the number of labels" : ""));
  }
  if (!is_mergeable(info.dtype)) {
    throw InputError(fmt::format(
        "{}: {} is {}; weights must be F32, F16, BF16 or F64",
        checkpoint.file_of(info.name).string(),
        info.name,
        dtype_name(info.dtype)));
  }
  const auto n = static_cast<size_t>(parameter.numel());
  auto* values = parameter.data_ptr<float>();
  if (info.dtype == DType::kF32) {
    checkpoint.read(info.name, std::as_writable_bytes(std::span(values, n)));
  } else {
    std::vector<std::byte> bytes(info.bytes());
    checkpoint.read(info.name, bytes);
    to_float32(info.dtype, bytes.data(), values, n);
  }
}

} // namespace

LoadedEncoder load_encoder(
    const std::filesystem::path& folder,
    int64_t num_labels,
    uint64_t seed,
    std::optional<double> dropout) {
  const ModelDir directory(folder);
  auto config = EncoderConfig::parse(
      directory.config_text(), (folder / "config.json").string(), num_labels);
  if (dropout) {
    config.hidden_dropout = config.attention_dropout =
        config.classifier_dropout = *dropout;
  }
  const Checkpoint checkpoint(folder);
  auto generator = at::detail::createCPUGenerator(seed);
  LoadedEncoder loaded{Encoder(config), {}};
  for (auto& item : loaded.model->named_parameters()) {
    const std::string& name = item.key();
    if (const TensorInfo* info = find_tensor(checkpoint, name)) {
      read_parameter(checkpoint, *info, item.value());
    } else if (is_head(name)) {
      initialize_parameter(name, item.value(), config, generator);
      loaded.fresh.push_back(name);
    } else {
      throw InputError(fmt::format(
          "{}: the tensor {} is missing; this is not a checkpoint of the "
          "model that config.json describes",
          folder.string(),
          name));
    }
  }
  return loaded;
}

} // namespace merganser
