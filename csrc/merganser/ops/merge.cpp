// One merged tensor from n models and their Fishers in one pass. The formulas
// are in merge/formula.h; the streaming engine calls the same loop.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

#include "merganser/merge/merge_elements.h"
#include "merganser/numeric/simd.h"
#include "merganser/ops/checks.h"
#include "merganser/ops/dispatcher.h"
#include "merganser/ops/ops.h"
#include "merganser/recipe/methods.h"

namespace merganser::ops {

at::Tensor merge(
    const std::optional<at::Tensor>& base,
    const std::optional<at::Tensor>& base_fisher,
    at::TensorList models,
    at::TensorList fishers,
    at::ArrayRef<double> weights,
    at::ArrayRef<double> scales,
    double base_scale,
    int64_t method,
    double delta,
    double clamp,
    double floor) {
  static const auto op = find_op("merganser::merge", merge);
  return op.call(
      base,
      base_fisher,
      models,
      fishers,
      weights,
      scales,
      base_scale,
      method,
      delta,
      clamp,
      floor);
}

at::ScalarType merge_type(
    const std::optional<at::Tensor>& base,
    const std::optional<at::Tensor>& base_fisher,
    at::TensorList models,
    at::TensorList fishers) {
  bool wide = (base && base->scalar_type() == at::kDouble) ||
      (base_fisher && base_fisher->scalar_type() == at::kDouble);
  for (const at::TensorList list : {models, fishers}) {
    for (const at::Tensor& tensor : list) {
      wide = wide || tensor.scalar_type() == at::kDouble;
    }
  }
  return wide ? at::kDouble : at::kFloat;
}

void check_merge(
    const std::optional<at::Tensor>& base,
    const std::optional<at::Tensor>& base_fisher,
    at::TensorList models,
    at::TensorList fishers,
    at::ArrayRef<double> weights,
    at::ArrayRef<double> scales,
    int64_t method) {
  constexpr auto kLast = static_cast<int64_t>(MergeFormula::kEwr);
  TORCH_CHECK(
      method >= 0 && method <= kLast,
      "merge: there is no method with number ",
      method);
  const MethodInfo* info = &method_of(static_cast<MergeFormula>(method));
  TORCH_CHECK(!models.empty(), "merge: needs at least one model");
  const auto check_tensor = [&](const char* name, const at::Tensor& tensor) {
    const at::ScalarType type = tensor.scalar_type();
    TORCH_CHECK(
        type == at::kFloat || type == at::kBFloat16 || type == at::kHalf ||
            type == at::kDouble,
        "merge: ",
        name,
        " must be float32, bfloat16, float16 or float64, got ",
        dtype_name(tensor));
    check_device("merge", name, tensor, models[0]);
    check_shape("merge", name, tensor, models[0].sizes());
  };
  for (const at::Tensor& model : models) {
    check_tensor("models", model);
  }
  const auto check_count = [&](const char* name, size_t count, bool needed) {
    TORCH_CHECK(
        count == (needed ? models.size() : 0),
        "merge: method ",
        info->name,
        needed ? " needs one of " : " takes none of ",
        name,
        needed ? " per model (" : " (",
        models.size(),
        " models), got ",
        count);
  };
  check_count("weights", weights.size(), true);
  check_count("fishers", fishers.size(), info->needs_fishers);
  check_count("scales", scales.size(), info->needs_fishers);
  for (const at::Tensor& fisher : fishers) {
    check_tensor("fishers", fisher);
  }
  const auto check_optional = [&](const char* name,
                                  const std::optional<at::Tensor>& tensor,
                                  bool needed) {
    TORCH_CHECK(
        tensor.has_value() || !needed,
        "merge: method ",
        info->name,
        " needs ",
        name);
    if (tensor) {
      check_tensor(name, *tensor);
    }
  };
  check_optional("base", base, info->needs_base);
  check_optional("base_fisher", base_fisher, info->needs_base_fisher);
}

namespace {

// Elements per inner pass: a few dozen converted pieces of it fit into the
// second-level cache.
constexpr int64_t kBlock = 1024;

// A tensor's elements as T, a block at a time: where they lie, or converted
// into a buffer of the calling thread's.
template <typename T>
const T* block(
    const at::Tensor& tensor,
    int64_t begin,
    int64_t count,
    std::vector<T>& buffer) {
  const T* result = nullptr;
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, tensor.scalar_type(), "merge", [&] {
        const scalar_t* const in = tensor.const_data_ptr<scalar_t>() + begin;
        if constexpr (std::is_same_v<scalar_t, T>) {
          result = in;
        } else {
          buffer.resize(kBlock);
          T* const out = buffer.data();
          widest([=] { std::copy(in, in + count, out); });
          result = out;
        }
      });
  return result;
}

template <typename T>
void merge_range(
    MergeFormula method,
    const MergeScalars<T>& scalars,
    const std::vector<at::Tensor>&
        sources, // base, base_fisher, models, fishers
    at::Tensor& out,
    int64_t begin,
    int64_t end) {
  std::vector<std::vector<T>> buffers(sources.size() + 1);
  std::vector<const T*> in(sources.size());
  for (int64_t i = begin; i < end; i += kBlock) {
    const int64_t count = std::min(kBlock, end - i);
    for (size_t k = 0; k < sources.size(); ++k) {
      in[k] = sources[k].defined() ? block(sources[k], i, count, buffers[k])
                                   : nullptr;
    }
    MergeArrays<T> arrays;
    arrays.base = in[0];
    arrays.base_fisher = in[1];
    arrays.models = in.data() + 2;
    arrays.fishers = in.data() + 2 + scalars.count;
    AT_DISPATCH_FLOATING_TYPES_AND2(
        at::kHalf, at::kBFloat16, out.scalar_type(), "merge", [&] {
          scalar_t* const y = out.data_ptr<scalar_t>() + i;
          if constexpr (std::is_same_v<scalar_t, T>) {
            arrays.out = y;
            merge_elements(method, scalars, arrays, count);
          } else {
            buffers.back().resize(kBlock);
            T* const x = buffers.back().data();
            arrays.out = x;
            merge_elements(method, scalars, arrays, count);
            widest([=] { std::copy(x, x + count, y); });
          }
        });
  }
}

at::Tensor merge_meta(
    const std::optional<at::Tensor>& base,
    const std::optional<at::Tensor>& base_fisher,
    at::TensorList models,
    at::TensorList fishers,
    at::ArrayRef<double> weights,
    at::ArrayRef<double> scales,
    double /*base_scale*/,
    int64_t method,
    double /*delta*/,
    double /*clamp*/,
    double /*floor*/) {
  check_merge(base, base_fisher, models, fishers, weights, scales, method);
  return at::empty(models[0].sizes(), models[0].options());
}

at::Tensor merge_cpu(
    const std::optional<at::Tensor>& base,
    const std::optional<at::Tensor>& base_fisher,
    at::TensorList models,
    at::TensorList fishers,
    at::ArrayRef<double> weights,
    at::ArrayRef<double> scales,
    double base_scale,
    int64_t method,
    double delta,
    double clamp,
    double floor) {
  check_merge(base, base_fisher, models, fishers, weights, scales, method);
  std::vector<at::Tensor> sources;
  sources.push_back(base ? base->contiguous() : at::Tensor());
  sources.push_back(base_fisher ? base_fisher->contiguous() : at::Tensor());
  for (const at::TensorList list : {models, fishers}) {
    for (const at::Tensor& tensor : list) {
      sources.push_back(tensor.contiguous());
    }
  }
  at::Tensor out = at::empty(models[0].sizes(), models[0].options());
  const auto run = [&]<typename T>(T) {
    const std::vector<T> alpha(weights.begin(), weights.end());
    const std::vector<T> n(scales.begin(), scales.end());
    MergeScalars<T> scalars;
    scalars.count = static_cast<int>(models.size());
    scalars.weights = alpha.data();
    scalars.scales = n.data();
    scalars.base_scale = static_cast<T>(base_scale);
    scalars.delta = static_cast<T>(delta);
    scalars.clamp = static_cast<T>(clamp);
    scalars.floor = static_cast<T>(floor);
    at::parallel_for(
        0,
        out.numel(),
        at::internal::GRAIN_SIZE,
        [&](int64_t begin, int64_t end) {
          merge_range(
              static_cast<MergeFormula>(method),
              scalars,
              sources,
              out,
              begin,
              end);
        });
  };
  if (merge_type(base, base_fisher, models, fishers) == at::kDouble) {
    run(double());
  } else {
    run(float());
  }
  return out;
}

TORCH_LIBRARY_IMPL(merganser, CPU, m) {
  m.impl("merge", &merge_cpu);
}

TORCH_LIBRARY_IMPL(merganser, Meta, m) {
  m.impl("merge", &merge_meta);
}

} // namespace
} // namespace merganser::ops
