#include "merganser/io/subspace_file.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "merganser/base/error.h"
#include "merganser/bindings/module.h"

namespace merganser::bindings {
namespace {

using Loss = SubspaceFisher::Loss;

std::vector<double> values_of(const at::Tensor& tensor) {
  const at::Tensor wide = tensor.to(at::kCPU, at::kDouble).contiguous();
  const double* data = wide.const_data_ptr<double>();
  return {data, data + wide.numel()};
}

at::Tensor tensor_of(
    const std::vector<double>& values,
    const std::vector<int64_t>& shape) {
  at::Tensor tensor = at::empty(shape, at::kDouble);
  std::ranges::copy(values, tensor.mutable_data_ptr<double>());
  return tensor;
}

// The columns C, from (K, C, C) values.
int64_t columns_of(const Loss& loss) {
  const size_t of_fold = loss.fisher.size() / loss.counts.size();
  return std::llround(std::sqrt(static_cast<double>(of_fold)));
}

std::optional<at::Tensor> fisher_of(const Loss& loss) {
  if (loss.is_direction()) {
    return std::nullopt;
  }
  const int64_t width = columns_of(loss);
  return tensor_of(loss.fisher, {std::ssize(loss.counts), width, width});
}

std::optional<at::Tensor> gradient_of(const Loss& loss) {
  if (loss.gradient.empty()) {
    return std::nullopt;
  }
  return tensor_of(loss.gradient, {std::ssize(loss.counts), columns_of(loss)});
}

} // namespace

void bind_subspace_file(py::module_& m) {
  py::class_<Loss>(m, "SubspaceLoss")
      .def(
          py::init([](const at::Tensor& fisher,
                      const std::optional<at::Tensor>& gradient,
                      std::vector<int64_t> counts,
                      int64_t num_examples,
                      std::string model_hash) {
            if (counts.empty() || fisher.dim() != 3 ||
                fisher.size(0) != std::ssize(counts)) {
              throw InputError(
                  "expected a Fisher (folds, columns, columns) and as many "
                  "counts as folds");
            }
            return Loss{
                .model_hash = std::move(model_hash),
                .num_examples = num_examples,
                .counts = std::move(counts),
                .fisher = values_of(fisher),
                .gradient =
                    gradient ? values_of(*gradient) : std::vector<double>{}};
          }),
          py::kw_only(),
          py::arg("fisher"),
          py::arg("gradient"),
          py::arg("counts"),
          py::arg("num_examples"),
          py::arg("model_hash") = "")
      .def_static(
          "direction",
          [](std::string model_hash) {
            return Loss{.model_hash = std::move(model_hash)};
          },
          py::arg("model_hash") = "")
      .def_property_readonly("fisher", &fisher_of)
      .def_property_readonly("gradient", &gradient_of)
      .def_readonly("counts", &Loss::counts)
      .def_readonly("num_examples", &Loss::num_examples)
      .def_readonly("model_hash", &Loss::model_hash);
  using Groups = std::vector<std::pair<std::string, std::vector<std::string>>>;
  py::class_<SubspaceFisher>(m, "SubspaceFisher")
      .def(
          py::init([](const Groups& groups,
                      Loss base,
                      std::vector<Loss> experts,
                      int64_t points,
                      uint64_t seed) {
            SubspaceFisher made;
            for (const auto& [name, tensors] : groups) {
              made.groups.push_back({name, tensors});
            }
            made.points = points;
            made.seed = seed;
            made.base = std::move(base);
            made.experts = std::move(experts);
            made.check();
            return made;
          }),
          py::kw_only(),
          py::arg("groups"),
          py::arg("base"),
          py::arg("experts"),
          py::arg("points") = 1,
          py::arg("seed") = 0)
      .def_property_readonly(
          "groups",
          [](const SubspaceFisher& from) {
            Groups groups;
            for (const SubspaceFisher::Group& group : from.groups) {
              groups.emplace_back(group.name, group.tensors);
            }
            return groups;
          })
      .def_readonly("points", &SubspaceFisher::points)
      .def_readonly("seed", &SubspaceFisher::seed)
      .def_readonly("base", &SubspaceFisher::base)
      .def_readonly("experts", &SubspaceFisher::experts)
      .def("save", &SubspaceFisher::save, py::arg("path"))
      .def_static(
          "load",
          [](const std::filesystem::path& path) {
            return SubspaceFisher::load(Checkpoint(path));
          },
          py::arg("path"));
}

} // namespace merganser::bindings
