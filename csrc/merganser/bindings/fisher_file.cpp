#include <map>
#include <optional>

#include "merganser/bindings/long_call.h"
#include "merganser/bindings/module.h"
#include "merganser/fisher/result.h"
#include "merganser/io/fisher_file.h"

namespace merganser::bindings {
namespace {

using Tensors = std::map<std::string, at::Tensor>;

void write_fisher(
    const std::filesystem::path& path,
    const Tensors& tensors,
    const FisherMetadata& metadata) {
  write_fisher_file(path, {tensors.begin(), tensors.end()}, metadata);
}

std::pair<Tensors, FisherMetadata> read_fisher(
    const std::filesystem::path& path) {
  const FisherResult result = FisherResult::load(path);
  return {
      Tensors(result.diagonal.begin(), result.diagonal.end()),
      result.metadata()};
}

TaskVectorStatistics parse_task_vector(const std::string& json) {
  return TaskVectorStatistics::parse(json, "task_vector");
}

void bind_task_vector(py::module_& m) {
  py::class_<Estimate>(m, "Estimate")
      .def(
          py::init<double, double>(),
          py::arg("value"),
          py::arg("standard_error"))
      .def_readonly("value", &Estimate::value)
      .def_readonly("standard_error", &Estimate::standard_error);
  py::class_<AlongTaskVector>(m, "AlongTaskVector")
      .def(
          py::init<Estimate, Estimate>(),
          py::arg("slope"),
          py::arg("curvature"))
      .def_readonly("slope", &AlongTaskVector::slope)
      .def_readonly("curvature", &AlongTaskVector::curvature);
  using Groups = std::vector<std::pair<std::string, AlongTaskVector>>;
  py::class_<TaskVectorStatistics>(m, "TaskVectorStatistics")
      .def(
          py::init<std::string, int64_t, int64_t, AlongTaskVector, Groups>(),
          py::kw_only(),
          py::arg("base_model_hash"),
          py::arg("num_examples_used"),
          py::arg("base_num_examples_used"),
          py::arg("total"),
          py::arg("groups"))
      .def_readonly("base_model_hash", &TaskVectorStatistics::base_model_hash)
      .def_readonly(
          "num_examples_used", &TaskVectorStatistics::num_examples_used)
      .def_readonly(
          "base_num_examples_used",
          &TaskVectorStatistics::base_num_examples_used)
      .def_readonly("total", &TaskVectorStatistics::total)
      .def_readonly("groups", &TaskVectorStatistics::groups)
      .def("to_json", &TaskVectorStatistics::to_json)
      .def_static("parse", &parse_task_vector, py::arg("json"))
      .def(py::pickle(
          [](const TaskVectorStatistics& from) { return from.to_json(); },
          &parse_task_vector));
}

} // namespace

void bind_fisher_file(py::module_& m) {
  bind_task_vector(m);
  py::class_<FisherMetadata>(m, "FisherMetadata")
      .def(
          py::init([](const std::string& estimator,
                      int64_t num_examples,
                      int64_t num_examples_used,
                      int64_t samples,
                      uint64_t seed,
                      const std::string& labels,
                      const std::string& base_model_hash,
                      std::optional<TaskVectorStatistics> task_vector,
                      const std::string& storage) {
            return FisherMetadata{
                estimator,
                num_examples,
                num_examples_used,
                samples,
                seed,
                labels,
                base_model_hash,
                std::move(task_vector),
                parse_storage(storage)};
          }),
          py::kw_only(),
          py::arg("estimator"),
          py::arg("num_examples"),
          py::arg("num_examples_used"),
          py::arg("samples"),
          py::arg("seed"),
          py::arg("labels"),
          py::arg("base_model_hash"),
          py::arg("task_vector") = std::nullopt,
          py::arg("storage") = "float32")
      .def_readonly("estimator", &FisherMetadata::estimator)
      .def_readonly("num_examples", &FisherMetadata::num_examples)
      .def_readonly("num_examples_used", &FisherMetadata::num_examples_used)
      .def_readonly("samples", &FisherMetadata::samples)
      .def_readonly("seed", &FisherMetadata::seed)
      .def_readonly("labels", &FisherMetadata::labels)
      .def_readonly("base_model_hash", &FisherMetadata::base_model_hash)
      .def_readonly("task_vector", &FisherMetadata::task_vector)
      .def_property_readonly("storage", [](const FisherMetadata& m) {
        return storage_name(m.storage);
      });
  m.def(
      "write_fisher",
      &write_fisher,
      py::arg("path"),
      py::arg("tensors"),
      py::arg("metadata"),
      py::call_guard<LongCall>());
  m.def(
      "read_fisher", &read_fisher, py::arg("path"), py::call_guard<LongCall>());
}

} // namespace merganser::bindings
