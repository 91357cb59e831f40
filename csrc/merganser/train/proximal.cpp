#include "merganser/train/proximal.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <functional>

#include "merganser/base/error.h"
#include "merganser/io/checkpoint.h"
#include "merganser/io/fisher_file.h"

namespace merganser {
namespace {

double read_num_examples(
    const Checkpoint& file,
    const std::string& model_hash) {
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
        "{}: the Fisher belongs to another model than the one that training "
        "starts from; estimate it with merganser fisher --model",
        file.path().string()));
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
}

} // namespace

Proximal::Proximal(
    const Arena& arena,
    const std::filesystem::path& fisher,
    const std::string& model_hash,
    double weight,
    int64_t num_examples)
    : start_(arena.parameters.clone()), precision_(arena.zeros()) {
  const Checkpoint file(fisher);
  const double base_examples = read_num_examples(file, model_hash);
  for (const Arena::Entry& entry : arena.entries()) {
    read_tensor(file, entry.name, Arena::view(precision_, entry));
  }
  precision_.mul_(weight * base_examples / static_cast<double>(num_examples));
}

double Proximal::add_gradient(const Arena& arena) const {
  const float* now = arena.parameters.const_data_ptr<float>();
  const float* start = start_.const_data_ptr<float>();
  const float* precision = precision_.const_data_ptr<float>();
  float* gradient = arena.gradients.data_ptr<float>();
  const auto add = [&](int64_t begin, int64_t end, double sum) {
    for (int64_t i = begin; i < end; i++) {
      const float difference = now[i] - start[i];
      const float pull = precision[i] * difference;
      gradient[i] += pull;
      sum += static_cast<double>(pull) * difference;
    }
    return sum;
  };
  const double twice = at::parallel_reduce(
      0,
      arena.parameters.numel(),
      at::internal::GRAIN_SIZE,
      0.0,
      add,
      std::plus<>());
  return 0.5 * twice;
}

} // namespace merganser
