#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "merganser/base/error.h"
#include "merganser/io/checkpoint.h"
#include "merganser/model/encoder.h"
#include "merganser/model/initialize.h"
#include "merganser/model/parameter_names.h"

namespace merganser {
namespace {

// Finds a parameter's tensor under any of its names.
const TensorInfo* find_tensor(
    const Checkpoint& checkpoint,
    const std::string& parameter) {
  for (const std::string& name : names_in_checkpoints(parameter)) {
    if (const TensorInfo* info = checkpoint.find(name)) {
      return info;
    }
  }
  return nullptr;
}

bool is_head(const std::string& parameter) {
  return parameter.starts_with("classifier.") ||
      parameter.starts_with("bert.pooler.");
}

[[noreturn]] void fail_missing(
    const std::filesystem::path& folder,
    const std::string& name) {
  throw InputError(fmt::format(
      "{}: tensor {} is missing; this is not a checkpoint of the model that "
      "config.json describes",
      folder.string(),
      name));
}

void check_shape(
    const Checkpoint& checkpoint,
    const TensorInfo& info,
    const std::vector<int64_t>& expected) {
  if (info.shape != expected) {
    throw InputError(fmt::format(
        "{}: tensor {} has shape [{}]; config.json requires [{}]{}",
        checkpoint.file_of(info.name).string(),
        info.name,
        fmt::join(info.shape, ", "),
        fmt::join(expected, ", "),
        is_head(info.name) ? "; check the number of labels" : ""));
  }
}

// Checks the sizes in config.json before anything of that size is allocated:
// the checkpoint has the tables, the last layer and no layer beyond it.
void check_sizes(
    const Checkpoint& checkpoint,
    const EncoderConfig& config,
    const std::filesystem::path& folder) {
  const std::string layers = "encoder.layer.";
  const std::string last = fmt::format(
      "{}{}.intermediate.dense.weight", layers, config.num_hidden_layers - 1);
  const std::pair<std::string, std::vector<int64_t>> expected[] = {
      {"embeddings.word_embeddings.weight",
       {config.vocab_size, config.hidden_size}},
      {"embeddings.position_embeddings.weight",
       {config.max_position_embeddings, config.hidden_size}},
      {"embeddings.token_type_embeddings.weight",
       {config.type_vocab_size, config.hidden_size}},
      {last, {config.intermediate_size, config.hidden_size}}};
  const std::string prefix =
      config.architecture == Architecture::kRoberta ? "roberta." : "bert.";
  for (const auto& [name, shape] : expected) {
    const TensorInfo* info = find_tensor(checkpoint, prefix + name);
    if (info == nullptr) {
      fail_missing(folder, prefix + name);
    }
    check_shape(checkpoint, *info, shape);
  }
  for (const TensorInfo& info : checkpoint.tensors()) {
    const size_t place = info.name.find(layers);
    if (place != std::string::npos &&
        std::atoll(info.name.c_str() + place + layers.size()) >=
            config.num_hidden_layers) {
      throw InputError(fmt::format(
          "{}: tensor {} belongs to a layer beyond num_hidden_layers = {} of "
          "config.json",
          checkpoint.file_of(info.name).string(),
          info.name,
          config.num_hidden_layers));
    }
  }
}

void read_parameter(
    const Checkpoint& checkpoint,
    const TensorInfo& info,
    at::Tensor& parameter) {
  check_shape(checkpoint, info, parameter.sizes().vec());
  if (!is_mergeable(info.dtype)) {
    throw InputError(fmt::format(
        "{}: tensor {} is {}; expected F32, F16, BF16 or F64",
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
  EncoderConfig config = EncoderConfig::read(folder, num_labels);
  if (dropout) {
    config.hidden_dropout = config.attention_dropout =
        config.classifier_dropout = *dropout;
  }
  const Checkpoint checkpoint(folder);
  check_sizes(checkpoint, config, folder);
  auto generator = at::detail::createCPUGenerator(seed);
  LoadedEncoder loaded{std::make_shared<EncoderImpl>(config), {}};
  for (auto& item : loaded.model->named_parameters()) {
    const std::string& name = item.key();
    if (const TensorInfo* info = find_tensor(checkpoint, name)) {
      read_parameter(checkpoint, *info, item.value());
    } else if (is_head(name)) {
      initialize_parameter(name, item.value(), config, generator);
      loaded.fresh.push_back(name);
    } else {
      fail_missing(folder, name);
    }
  }
  return loaded;
}

} // namespace merganser
