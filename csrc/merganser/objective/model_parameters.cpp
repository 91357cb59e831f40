#include "merganser/objective/model_parameters.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "merganser/base/error.h"

namespace merganser {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void refuse_model(const fs::path& folder, const fs::path& base) {
  throw InputError(fmt::format(
      "{} has different tensors from {}; expected models fine-tuned from it",
      folder.string(),
      base.string()));
}

void check_shape(
    const at::Tensor& tensor,
    const Arena::Entry& entry,
    const fs::path& folder,
    const fs::path& base) {
  if (tensor.sizes().vec() != entry.shape) {
    throw InputError(fmt::format(
        "{}: tensor {} has shape [{}]; expected [{}], as in {}",
        folder.string(),
        entry.name,
        fmt::join(tensor.sizes(), ", "),
        fmt::join(entry.shape, ", "),
        base.string()));
  }
}

} // namespace

at::Tensor flat_parameters(
    const Classifier& model,
    const fs::path& folder,
    const Arena& arena,
    const fs::path& base) {
  const at::NoGradGuard no_grad;
  const auto parameters = model.encoder->named_parameters();
  if (parameters.size() != arena.entries().size()) {
    refuse_model(folder, base);
  }
  at::Tensor flat = arena.zeros();
  for (const Arena::Entry& entry : arena.entries()) {
    const at::Tensor* tensor = parameters.find(entry.name);
    if (tensor == nullptr) {
      refuse_model(folder, base);
    }
    check_shape(*tensor, entry, folder, base);
    Arena::view(flat, entry).copy_(*tensor);
  }
  return flat;
}

} // namespace merganser
