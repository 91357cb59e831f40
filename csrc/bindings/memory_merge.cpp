#include "merge/memory_merge.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty_like.h>
#include <fmt/format.h>

#include "bindings/long_call.h"
#include "io/error.h"

namespace merganser::bindings {
namespace {

DType dtype_of(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kHalf:
      return DType::kF16;
    case at::kBFloat16:
      return DType::kBF16;
    case at::kFloat:
      return DType::kF32;
    case at::kDouble:
      return DType::kF64;
    default:
      throw Error(
          fmt::format("{} is not merged", c10::toString(tensor.scalar_type())));
  }
}

// On the CPU; the result has the base's dtype.
at::Tensor merge(
    MemoryMerge& self,
    const std::string& name,
    const at::Tensor& base,
    const std::vector<at::Tensor>& models) {
  std::vector<at::Tensor> tensors = {base.contiguous()};
  for (const at::Tensor& model : models) {
    tensors.push_back(model.contiguous());
  }
  std::vector<MemoryTensor> sources;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const at::Tensor& tensor = tensors[i];
    sources.push_back(
        {.label = i == 0 ? "base" : fmt::format("models[{}]", i - 1),
         .dtype = dtype_of(tensor),
         .data = {
             static_cast<const std::byte*>(tensor.const_data_ptr()),
             tensor.nbytes()}});
  }
  const at::Tensor out = at::empty_like(tensors[0]);
  self.merge(
      {name, dtype_of(out), out.sizes().vec()},
      sources,
      {static_cast<std::byte*>(out.mutable_data_ptr()), out.nbytes()},
      at::get_num_threads());
  return out;
}

} // namespace

void bind_memory_merge(py::module_& m) {
  py::class_<MemoryMerge>(m, "MemoryMerge")
      .def(
          py::init<
              std::string_view,
              const std::string&,
              const std::vector<std::string>&,
              const std::vector<std::string>&>(),
          py::arg("method"),
          py::arg("parameters"),
          py::arg("models"),
          py::arg("names"))
      .def(
          "merge",
          &merge,
          py::arg("name"),
          py::arg("base"),
          py::arg("models"),
          py::call_guard<LongCall>());
}

} // namespace merganser::bindings
