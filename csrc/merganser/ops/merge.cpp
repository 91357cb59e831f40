// One merged tensor from n models and their Fishers in one pass. The formulas
// are in numeric/merge_formula.h; the streaming engine calls the same loop.

#include "merganser/ops/merge.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <string>
#include <vector>

#include "merganser/merge/merge_elements.h"
#include "merganser/numeric/simd.h"
#include "merganser/ops/checks.h"
#include "merganser/ops/cpu_kernels.h"
#include "merganser/ops/dispatch.h"
#include "merganser/ops/reference.h"
#include "merganser/recipe/methods.h"

namespace merganser::ops {

at::ScalarType merge_type(const TensorMerge& merge) {
  const auto wide = [](const auto& tensor) {
    return tensor.scalar_type() == at::kDouble;
  };
  return (merge.base && wide(*merge.base)) ||
          (merge.base_fisher && wide(*merge.base_fisher)) ||
          std::any_of(merge.models.begin(), merge.models.end(), wide) ||
          std::any_of(merge.fishers.begin(), merge.fishers.end(), wide)
      ? at::kDouble
      : at::kFloat;
}

namespace {

// `like`: a tensor of the same shape on the same device.
void check_tensor(
    const char* name,
    const at::Tensor& tensor,
    const at::Tensor& like) {
  const at::ScalarType type = tensor.scalar_type();
  TORCH_CHECK(
      type == at::kFloat || type == at::kBFloat16 || type == at::kHalf ||
          type == at::kDouble,
      "merge: ",
      name,
      " must be float32, bfloat16, float16 or float64, got ",
      dtype_name(tensor));
  check_device("merge", name, tensor, like);
  check_shape("merge", name, tensor, like.sizes());
}

void check_list(const char* name, at::TensorList list, const at::Tensor& like) {
  for (const at::Tensor& tensor : list) {
    check_tensor(name, tensor, like);
  }
}

void check_optional(
    const char* name,
    const std::optional<at::Tensor>& tensor,
    const at::Tensor& like,
    const MethodInfo& method,
    bool needed) {
  TORCH_CHECK(
      tensor.has_value() || !needed,
      "merge: method ",
      method.name,
      " needs ",
      name);
  if (tensor) {
    check_tensor(name, *tensor, like);
  }
}

void check_count(
    const char* name,
    size_t count,
    size_t models,
    const MethodInfo& method,
    bool needed) {
  TORCH_CHECK(
      count == (needed ? models : 0),
      "merge: method ",
      method.name,
      needed ? " needs " : " takes no ",
      name,
      needed ? ", one per model (" + std::to_string(models) + ")" : "",
      ", got ",
      count);
}

} // namespace

void check_merge(const TensorMerge& merge) {
  TORCH_CHECK(
      merge.method >= 0 && merge.method <= static_cast<int64_t>(kLastOpFormula),
      "merge: unknown method number ",
      merge.method);
  const MethodInfo& method = method_of(static_cast<MergeFormula>(merge.method));
  const size_t models = merge.models.size();
  TORCH_CHECK(models > 0, "merge: needs at least one model");
  const at::Tensor& first = merge.models[0];
  const bool needs_fishers = method.needs_fishers;
  check_list("models", merge.models, first);
  check_count("weights", merge.weights.size(), models, method, true);
  check_count("fishers", merge.fishers.size(), models, method, needs_fishers);
  check_count(
      "scales", merge.num_examples.size(), models, method, needs_fishers);
  const bool has_rhos =
      !merge.rhos.empty() && method.formula == MergeFormula::kGradientMatching;
  check_count("rhos", merge.rhos.size(), models, method, has_rhos);
  check_list("fishers", merge.fishers, first);
  check_optional("base", merge.base, first, method, method.needs_base);
  check_optional(
      "base_fisher",
      merge.base_fisher,
      first,
      method,
      method.needs_base_fisher);
}

namespace {

// Elements per inner pass: a few dozen converted blocks fit into the
// second-level cache.
constexpr int64_t kBlock = 1024;

// One block of a tensor's elements as T: in place, or converted into `buffer`,
// which belongs to the calling thread.
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

// base, base_fisher, models, fishers; undefined if absent.
std::vector<at::Tensor> contiguous_sources(const TensorMerge& merge) {
  std::vector<at::Tensor> sources;
  for (const auto* tensor : {&merge.base, &merge.base_fisher}) {
    sources.push_back(*tensor ? (*tensor)->contiguous() : at::Tensor());
  }
  for (const at::TensorList list : {merge.models, merge.fishers}) {
    for (const at::Tensor& tensor : list) {
      sources.push_back(tensor.contiguous());
    }
  }
  return sources;
}

} // namespace

at::Tensor merge_meta(const TensorMerge& merge) {
  check_merge(merge);
  return merge.models[0].new_empty(merge.models[0].sizes());
}

at::Tensor merge_cpu(const TensorMerge& merge) {
  at::Tensor out = merge_meta(merge);
  const std::vector<at::Tensor> sources = contiguous_sources(merge);
  const auto run = [&]<typename T>(T) {
    const std::vector<T> alpha(merge.weights.begin(), merge.weights.end());
    const std::vector<T> n(
        merge.num_examples.begin(), merge.num_examples.end());
    const std::vector<T> rho(merge.rhos.begin(), merge.rhos.end());
    MergeScalars<T> scalars = merge_scalars<T>(merge);
    scalars.weights = alpha.data();
    scalars.scales = n.data();
    scalars.rhos = rho.empty() ? nullptr : rho.data();
    at::parallel_for(0, out.numel(), kGrain, [&](int64_t begin, int64_t end) {
      merge_range(
          static_cast<MergeFormula>(merge.method),
          scalars,
          sources,
          out,
          begin,
          end);
    });
  };
  if (merge_type(merge) == at::kDouble) {
    run(double());
  } else {
    run(float());
  }
  return out;
}

} // namespace merganser::ops
