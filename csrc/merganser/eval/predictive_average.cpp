#include "merganser/eval/predictive_average.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>

#include "merganser/base/error.h"
#include "merganser/eval/predict.h"

namespace merganser {
namespace {

// Buffers, which have no precision, may be in the checkpoint alone.
void check_parameters(const Encoder& model, const Posterior& posterior) {
  const auto parameters = model->named_parameters();
  for (const auto& item : posterior.precision()) {
    if (!parameters.contains(item.first)) {
      throw InputError(fmt::format(
          "the posterior has tensor {}, which the model lacks", item.first));
    }
  }
  for (const auto& item : parameters) {
    const auto found = posterior.mean().find(item.key());
    if (found == posterior.mean().end()) {
      throw InputError(fmt::format(
          "the posterior lacks tensor {} of the model", item.key()));
    }
    if (found->second.sizes() != item.value().sizes()) {
      throw InputError(fmt::format(
          "tensor {} of the posterior has shape [{}]; expected [{}], as in the "
          "model",
          item.key(),
          fmt::join(found->second.sizes(), ", "),
          fmt::join(item.value().sizes(), ", ")));
    }
  }
}

void load_state(Encoder& model, const Posterior::Tensors& state) {
  for (auto& item : model->named_parameters()) {
    item.value().copy_(state.at(item.key()));
  }
}

} // namespace

at::Tensor predictive_average(
    const Encoder& model,
    const Posterior& posterior,
    int64_t samples,
    uint64_t seed,
    const Dataset& data,
    int32_t pad_id,
    int64_t batch_size,
    bool bfloat16,
    const ProgressCallback& progress) {
  if (samples < 1) {
    throw InputError(
        fmt::format("samples must be at least 1, got {}", samples));
  }
  check_parameters(model, posterior);
  const at::NoGradGuard no_grad;
  Encoder sampled = std::make_shared<EncoderImpl>(model->config());
  at::Generator generator = at::detail::createCPUGenerator(seed);
  at::Tensor sum; // its logarithm
  for (int64_t s = 0; s < samples; ++s) {
    load_state(sampled, posterior.sample(generator));
    const auto count = [&](int64_t done, int64_t total, const std::string&) {
      progress(s * total + done, samples * total, "");
    };
    const at::Tensor log_p = predict(
        sampled,
        data,
        pad_id,
        batch_size,
        bfloat16,
        progress ? ProgressCallback(count) : ProgressCallback());
    sum = s == 0 ? log_p : at::logaddexp(sum, log_p);
  }
  return sum - std::log(static_cast<double>(samples));
}

} // namespace merganser
