#include "merganser/train/flat_fisher.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "merganser/base/error.h"
#include "merganser/io/checkpoint.h"
#include "merganser/io/fisher_file.h"

namespace merganser {
namespace {

FisherMetadata read_metadata(const Checkpoint& file) {
  const auto metadata = FisherMetadata::parse(file.metadata(), file.path());
  if (!metadata) {
    throw InputError(fmt::format(
        "{}: not a Fisher file of merganser: its metadata lacks "
        "format_version, so its number of examples is unknown",
        file.path().string()));
  }
  return *metadata;
}

void read_tensor(
    const Checkpoint& file,
    const std::string& name,
    at::Tensor out) {
  const TensorInfo* info = file.find(name);
  if (info == nullptr) {
    throw InputError(fmt::format(
        "{}: the Fisher of {} is missing", file.path().string(), name));
  }
  if (info->shape != out.sizes().vec()) {
    throw InputError(fmt::format(
        "{}: tensor {} must have the model's shape",
        file.path().string(),
        name));
  }
  read_fisher_values(
      file.at(name),
      std::span(out.data_ptr<float>(), static_cast<size_t>(out.numel())));
  if (!out.isfinite().all().item<bool>() || out.lt(0).any().item<bool>()) {
    throw InputError(fmt::format(
        "{}: the Fisher of {} must be finite and not negative",
        file.path().string(),
        name));
  }
}

} // namespace

bool FlatFisher::may_belong_to(const std::string& hash) const {
  return model_hash.empty() || model_hash == hash;
}

FlatFisher read_flat_fisher(
    const Arena& arena,
    const std::filesystem::path& file) {
  const Checkpoint checkpoint(file);
  const FisherMetadata metadata = read_metadata(checkpoint);
  FlatFisher fisher{
      .mean = arena.zeros(),
      .num_examples = static_cast<double>(metadata.num_examples),
      .num_examples_used = metadata.num_examples_used,
      .model_hash = metadata.base_model_hash,
      .scale = metadata.scale};
  for (const Arena::Entry& entry : arena.entries()) {
    read_tensor(checkpoint, entry.name, Arena::view(fisher.mean, entry));
  }
  return fisher;
}

FlatFisher read_fisher_of(
    const std::filesystem::path& model,
    const Arena& arena,
    const std::filesystem::path& file) {
  FlatFisher fisher = read_flat_fisher(arena, file);
  if (!fisher.may_belong_to(Checkpoint(model).content_hash())) {
    throw InputError(fmt::format(
        "{}: the Fisher belongs to a different model than {}; estimate it with "
        "merganser fisher --model",
        file.string(),
        model.string()));
  }
  return fisher;
}

} // namespace merganser
