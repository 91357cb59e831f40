#include <map>

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

} // namespace

void bind_fisher_file(py::module_& m) {
  py::class_<FisherMetadata>(m, "FisherMetadata")
      .def(
          py::init([](const std::string& estimator,
                      int64_t num_examples,
                      int64_t num_examples_used,
                      int64_t samples,
                      uint64_t seed,
                      const std::string& labels,
                      const std::string& base_model_hash) {
            return FisherMetadata{
                estimator,
                num_examples,
                num_examples_used,
                samples,
                seed,
                labels,
                base_model_hash};
          }),
          py::kw_only(),
          py::arg("estimator"),
          py::arg("num_examples"),
          py::arg("num_examples_used"),
          py::arg("samples"),
          py::arg("seed"),
          py::arg("labels"),
          py::arg("base_model_hash"))
      .def_readonly("estimator", &FisherMetadata::estimator)
      .def_readonly("num_examples", &FisherMetadata::num_examples)
      .def_readonly("num_examples_used", &FisherMetadata::num_examples_used)
      .def_readonly("samples", &FisherMetadata::samples)
      .def_readonly("seed", &FisherMetadata::seed)
      .def_readonly("labels", &FisherMetadata::labels)
      .def_readonly("base_model_hash", &FisherMetadata::base_model_hash);
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
