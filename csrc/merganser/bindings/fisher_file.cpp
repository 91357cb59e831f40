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

Tensors stored(
    const std::string& name,
    const at::Tensor& values,
    const std::string& storage) {
  const NamedTensors parts =
      stored_tensors(name, values, parse_storage(storage));
  return Tensors(parts.begin(), parts.end());
}

TaskVectorStatistics parse_task_vector(const std::string& json) {
  return TaskVectorStatistics::parse(json, "task_vector");
}

void bind_point_and_scale(py::module_& m) {
  py::class_<FisherPoint>(m, "FisherPoint")
      .def(
          py::init<std::string, int64_t>(),
          py::arg("model_hash"),
          py::arg("along"))
      .def_readonly("model_hash", &FisherPoint::model_hash)
      .def_readonly("along", &FisherPoint::along)
      .def(py::pickle(
          [](const FisherPoint& from) {
            return py::make_tuple(from.model_hash, from.along);
          },
          [](const py::tuple& from) {
            return FisherPoint{
                from[0].cast<std::string>(), from[1].cast<int64_t>()};
          }));
  py::class_<FisherScale>(m, "FisherScale")
      .def(
          py::init<Estimate, std::string, int64_t>(),
          py::kw_only(),
          py::arg("scale"),
          py::arg("merge_hash"),
          py::arg("num_examples_used"))
      .def_readonly("scale", &FisherScale::scale)
      .def_readonly("merge_hash", &FisherScale::merge_hash)
      .def_readonly("num_examples_used", &FisherScale::num_examples_used)
      .def(py::pickle(
          [](const FisherScale& from) { return from.to_json(); },
          [](const std::string& json) {
            return FisherScale::parse(json, "scale");
          }));
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
  bind_point_and_scale(m);
  py::class_<FisherMetadata>(m, "FisherMetadata")
      .def(
          py::init([](const std::string& estimator,
                      int64_t num_examples,
                      int64_t num_examples_used,
                      int64_t samples,
                      uint64_t seed,
                      const std::string& labels,
                      const std::string& base_model_hash,
                      std::optional<FisherPoint> at,
                      std::optional<TaskVectorStatistics> task_vector,
                      std::optional<FisherScale> scale,
                      const std::string& storage) {
            return FisherMetadata{
                estimator,
                num_examples,
                num_examples_used,
                samples,
                seed,
                labels,
                base_model_hash,
                std::move(at),
                std::move(task_vector),
                std::move(scale),
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
          py::arg("at") = std::nullopt,
          py::arg("task_vector") = std::nullopt,
          py::arg("scale") = std::nullopt,
          py::arg("storage") = "float32")
      .def(
          "to_dict",
          &FisherMetadata::to_metadata,
          "The entries of a file's metadata.")
      .def_readonly("estimator", &FisherMetadata::estimator)
      .def_readonly("num_examples", &FisherMetadata::num_examples)
      .def_readonly("num_examples_used", &FisherMetadata::num_examples_used)
      .def_readonly("samples", &FisherMetadata::samples)
      .def_readonly("seed", &FisherMetadata::seed)
      .def_readonly("labels", &FisherMetadata::labels)
      .def_readonly("base_model_hash", &FisherMetadata::base_model_hash)
      .def_readonly("at", &FisherMetadata::at)
      .def_readonly("task_vector", &FisherMetadata::task_vector)
      .def_readonly("scale", &FisherMetadata::scale)
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
      "stored_tensors",
      &stored,
      py::arg("name"),
      py::arg("values"),
      py::arg("storage"));
  m.def(
      "read_fisher", &read_fisher, py::arg("path"), py::call_guard<LongCall>());
}

} // namespace merganser::bindings
