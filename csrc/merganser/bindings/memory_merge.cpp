#include "merganser/engine/memory_merge.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include "merganser/base/error.h"
#include "merganser/bindings/long_call.h"
#include "merganser/bindings/module.h"

namespace merganser::bindings {
namespace {

// A label for errors, and a contiguous tensor on the CPU.
using Labelled = std::pair<std::string, at::Tensor>;

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
      throw Error(fmt::format(
          "cannot merge tensors of type {}; expected Half, BFloat16, Float or "
          "Double",
          c10::toString(tensor.scalar_type())));
  }
}

MemoryTensor memory_of(const std::string& name, const Labelled& from) {
  const auto& [label, tensor] = from;
  return {
      .label = label,
      .info = {name, dtype_of(tensor), tensor.sizes().vec()},
      .data = {
          static_cast<const std::byte*>(tensor.const_data_ptr()),
          tensor.nbytes()}};
}

std::vector<MemoryTensor> memory_of(
    const std::string& name,
    const std::vector<Labelled>& from) {
  std::vector<MemoryTensor> found;
  for (const Labelled& tensor : from) {
    found.push_back(memory_of(name, tensor));
  }
  return found;
}

// A value of Python as it would stand in a recipe; arrays as lists.
YAML::Node node_of(const py::handle& value, const std::string& label) {
  YAML::Node node;
  if (py::hasattr(value, "tolist")) {
    return node_of(value.attr("tolist")(), label);
  }
  if (py::isinstance<py::dict>(value)) {
    node = YAML::Node(YAML::NodeType::Map);
    for (const auto& [key, item] : py::cast<py::dict>(value)) {
      node.force_insert(py::str(key).cast<std::string>(), node_of(item, label));
    }
  } else if (
      py::isinstance<py::list>(value) || py::isinstance<py::tuple>(value)) {
    node = YAML::Node(YAML::NodeType::Sequence);
    for (const auto& item : py::cast<py::sequence>(value)) {
      node.push_back(node_of(item, label));
    }
  } else if (py::isinstance<py::bool_>(value)) {
    node = value.cast<bool>();
  } else if (
      py::isinstance<py::int_>(value) || py::isinstance<py::float_>(value) ||
      py::isinstance<py::str>(value)) {
    node = py::str(value).cast<std::string>(); // repr of a number is exact
  } else if (!value.is_none()) {
    throw InputError(fmt::format(
        "{} must be as in a recipe, not {}",
        label,
        py::str(py::type::of(value).attr("__name__")).cast<std::string>()));
  }
  return node;
}

void merge(
    MemoryMerge& self,
    const std::string& name,
    const at::Tensor& out,
    const std::vector<Labelled>& weights,
    const std::vector<Labelled>& fishers,
    const std::vector<Labelled>& grams,
    const std::optional<Labelled>& task_vectors_from) {
  self.merge(
      {name, dtype_of(out), out.sizes().vec()},
      {memory_of(name, weights),
       memory_of(name, fishers),
       memory_of(name, grams),
       task_vectors_from ? std::optional(memory_of(name, *task_vectors_from))
                         : std::nullopt},
      {static_cast<std::byte*>(out.mutable_data_ptr()), out.nbytes()},
      at::get_num_threads());
}

void add_fisher(
    MemoryMerge& self,
    size_t fisher,
    const std::string& name,
    const Labelled& tensor) {
  self.add_fisher(fisher, memory_of(name, tensor), at::get_num_threads());
}

// The arguments of torch.ops.merganser.merge.
py::dict scalars(const MemoryMerge& self, const std::string& name) {
  const MemoryScalars found = self.scalars(name);
  using namespace py::literals;
  return py::dict(
      "weights"_a = found.parameters.weights,
      "scales"_a = found.scales,
      "rhos"_a = found.parameters.rho,
      "base_scale"_a = found.base_scale,
      "delta"_a = found.parameters.delta,
      "clamp"_a = found.parameters.clamp,
      "floor"_a = found.parameters.floor);
}

} // namespace

void bind_memory_merge(py::module_& m) {
  py::class_<MemoryMerge>(m, "MemoryMerge")
      .def(
          py::init([](std::string_view method,
                      const py::object& parameters,
                      const std::vector<py::object>& weights,
                      const std::vector<std::string>& names,
                      const std::vector<double>& fisher_examples,
                      const std::vector<double>& gram_examples,
                      const std::vector<std::optional<TaskVectorStatistics>>&
                          task_vectors,
                      const std::vector<std::optional<FisherScale>>& scales,
                      const std::optional<SubspaceFisher>& subspace) {
            const auto mapping = [](const py::object& value,
                                    const std::string& label) {
              return YamlValue::of(node_of(value, label), label);
            };
            std::vector<YamlValue> models;
            for (size_t t = 0; t < weights.size(); ++t) {
              models.push_back(
                  mapping(weights[t], fmt::format("weights[{}]", t)));
            }
            return MemoryMerge(
                method,
                mapping(parameters, "parameters"),
                models,
                names,
                {fisher_examples, gram_examples, task_vectors, scales},
                subspace);
          }),
          py::arg("method"),
          py::arg("parameters"),
          py::arg("models"),
          py::arg("names"),
          py::arg("fisher_examples"),
          py::arg("gram_examples"),
          py::arg("task_vectors"),
          py::arg("scales"),
          py::arg("subspace") = std::nullopt)
      .def_property_readonly("unstable_weights", &MemoryMerge::unstable_weights)
      .def_property_readonly("unstable_rhos", &MemoryMerge::unstable_rhos)
      .def(
          "normalizes_fishers",
          &MemoryMerge::normalizes_fishers,
          py::arg("name"))
      .def("fisher_power", &MemoryMerge::fisher_power, py::arg("name"))
      .def(
          "add_fisher",
          &add_fisher,
          py::arg("fisher"),
          py::arg("name"),
          py::arg("tensor"),
          py::call_guard<LongCall>())
      .def("scalars", &scalars, py::arg("name"))
      .def(
          "merge",
          &merge,
          py::arg("name"),
          py::arg("out"),
          py::arg("weights"),
          py::arg("fishers"),
          py::arg("grams"),
          py::arg("task_vectors_from") = std::nullopt,
          py::call_guard<LongCall>());
}

} // namespace merganser::bindings
