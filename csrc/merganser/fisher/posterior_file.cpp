#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <span>

#include "merganser/base/error.h"
#include "merganser/fisher/posterior.h"
#include "merganser/io/checkpoint.h"

namespace merganser {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFile = "posterior.safetensors";
constexpr const char* kEstimator = "posterior"; // in the metadata of that file

constexpr std::pair<DType, at::ScalarType> kTypes[] = {
    {DType::kBool, at::kBool},
    {DType::kU8, at::kByte},
    {DType::kI8, at::kChar},
    {DType::kI16, at::kShort},
    {DType::kI32, at::kInt},
    {DType::kI64, at::kLong},
    {DType::kF16, at::kHalf},
    {DType::kBF16, at::kBFloat16},
    {DType::kF32, at::kFloat},
    {DType::kF64, at::kDouble}};

at::Tensor read_tensor(const Checkpoint& checkpoint, const TensorInfo& info) {
  const auto* type = std::ranges::find(
      kTypes, info.dtype, [](auto& pair) { return pair.first; });
  if (type == std::end(kTypes)) {
    throw InputError(fmt::format(
        "{}: tensor {} is {}, which is not supported",
        checkpoint.file_of(info.name).string(),
        info.name,
        dtype_name(info.dtype)));
  }
  at::Tensor tensor = at::empty(info.shape, type->second);
  checkpoint.read(
      info.name, {static_cast<std::byte*>(tensor.data_ptr()), tensor.nbytes()});
  return tensor;
}

Posterior::Tensors read_tensors(const Checkpoint& checkpoint) {
  Posterior::Tensors tensors;
  for (const TensorInfo& info : checkpoint.tensors()) {
    tensors.emplace(info.name, read_tensor(checkpoint, info));
  }
  return tensors;
}

DType dtype_of(const at::Tensor& tensor) {
  const at::ScalarType type = tensor.scalar_type();
  const auto* found =
      std::ranges::find(kTypes, type, [](auto& pair) { return pair.second; });
  if (found == std::end(kTypes)) {
    throw InputError(
        fmt::format("cannot save tensors of type {}", at::toString(type)));
  }
  return found->first;
}

std::vector<TensorInfo> infos_of(const Posterior::Tensors& tensors) {
  std::vector<TensorInfo> infos;
  for (const auto& [name, tensor] : tensors) {
    infos.push_back({name, dtype_of(tensor), tensor.sizes().vec()});
  }
  return infos;
}

void write_tensors(
    const fs::path& folder,
    std::vector<TensorInfo> infos,
    const Posterior::Tensors& tensors) {
  CheckpointWriter writer(folder, std::move(infos), {});
  for (const auto& [name, tensor] : tensors) {
    writer.write(
        name,
        {static_cast<const std::byte*>(tensor.const_data_ptr()),
         tensor.nbytes()});
  }
  writer.finish();
}

at::Tensor as_float32(const std::string& name, const at::Tensor& precision) {
  at::Tensor rounded = precision.to(at::kFloat);
  const at::Tensor lost =
      rounded.isinf().logical_or_(rounded.eq(0).logical_and_(precision.gt(0)));
  if (lost.any().item<bool>()) {
    throw InputError(fmt::format(
        "cannot save the precision of tensor {}: {:g} is out of float32's "
        "range",
        name,
        precision.masked_select(lost)[0].item<double>()));
  }
  return rounded;
}

// False: the Fisher is known to be another model's.
bool may_belong_to(const FisherResult& fisher, const Checkpoint& model) {
  return fisher.model_hash.empty() || fisher.model_hash == model.content_hash();
}

} // namespace

Posterior Posterior::laplace(
    const fs::path& model,
    const fs::path& fisher,
    const std::optional<fs::path>& base_fisher,
    double delta) {
  const Checkpoint checkpoint(model);
  const FisherResult own = FisherResult::load(fisher);
  if (own.estimator == kEstimator && (base_fisher || delta > 0)) {
    throw InputError(fmt::format(
        "{} is a posterior's file, whose precision has that of the prior; "
        "leave out the base's Fisher and delta",
        fisher.string()));
  }
  if (!may_belong_to(own, checkpoint)) {
    throw InputError(fmt::format(
        "{}: the Fisher belongs to a different model than {}",
        fisher.string(),
        model.string()));
  }
  std::optional<FisherResult> base;
  if (base_fisher) {
    base = FisherResult::load(*base_fisher);
  }
  return laplace(read_tensors(checkpoint), own, base ? &*base : nullptr, delta);
}

void Posterior::save(const fs::path& folder) const {
  if (fs::exists(folder / "model.safetensors.index.json")) {
    throw InputError(fmt::format(
        "{} has a sharded model; choose another output path", folder.string()));
  }
  FisherResult fisher;
  for (const auto& [name, values] : precision_) {
    fisher.diagonal.emplace_back(name, as_float32(name, values));
  }
  std::vector<TensorInfo> infos = infos_of(mean_);
  fs::create_directories(folder); // not before: a refusal leaves nothing there
  write_tensors(folder, std::move(infos), mean_);
  fisher.estimator = kEstimator;
  fisher.num_examples = 1;
  fisher.num_examples_used = 1;
  fisher.model_hash = Checkpoint(folder).content_hash();
  fisher.save(folder / kFile);
}

Posterior Posterior::load(const fs::path& folder) {
  const Checkpoint checkpoint(folder);
  const FisherResult fisher = FisherResult::load(folder / kFile);
  if (!may_belong_to(fisher, checkpoint)) {
    throw InputError(fmt::format(
        "{}: {} belongs to a different model", folder.string(), kFile));
  }
  return laplace(read_tensors(checkpoint), fisher);
}

} // namespace merganser
