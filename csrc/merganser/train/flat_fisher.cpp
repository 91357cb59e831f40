#include "merganser/train/flat_fisher.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "merganser/base/error.h"
#include "merganser/io/checkpoint.h"
#include "merganser/io/fisher_file.h"

namespace merganser {
namespace {

double read_num_examples(
    const Checkpoint& file,
    const std::string& model_hash,
    const std::string& model) {
  const auto metadata = FisherMetadata::parse(file.metadata(), file.path());
  if (!metadata) {
    throw InputError(fmt::format(
        "{}: not a Fisher file of merganser: its metadata lacks "
        "format_version, so its number of examples is unknown",
        file.path().string()));
  }
  if (!metadata->base_model_hash.empty() &&
      metadata->base_model_hash != model_hash) {
    throw InputError(fmt::format(
        "{}: the Fisher belongs to another model than {}; estimate it with "
        "merganser fisher --model",
        file.path().string(),
        model));
  }
  return static_cast<double>(metadata->num_examples);
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
  if (info->dtype != DType::kF32 || info->shape != out.sizes().vec()) {
    throw InputError(fmt::format(
        "{}: tensor {} must be F32 with the model's shape",
        file.path().string(),
        name));
  }
  file.read(name, {static_cast<std::byte*>(out.data_ptr()), out.nbytes()});
  if (!out.isfinite().all().item<bool>()) {
    throw InputError(fmt::format(
        "{}: the Fisher of {} is not finite", file.path().string(), name));
  }
}

} // namespace

FlatFisher read_flat_fisher(
    const Arena& arena,
    const std::filesystem::path& file,
    const std::string& model_hash,
    const std::string& model) {
  const Checkpoint checkpoint(file);
  FlatFisher fisher{
      .mean = arena.zeros(),
      .num_examples = read_num_examples(checkpoint, model_hash, model)};
  for (const Arena::Entry& entry : arena.entries()) {
    read_tensor(checkpoint, entry.name, Arena::view(fisher.mean, entry));
  }
  return fisher;
}

} // namespace merganser
