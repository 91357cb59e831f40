#include "merganser/bindings/encoder.h"
#include "merganser/bindings/long_call.h"
#include "merganser/bindings/module.h"
#include "merganser/io/atomic_file.h"
#include "merganser/model/autocast.h"

namespace merganser::bindings {
namespace {

namespace fs = std::filesystem;

PyEncoder load(const fs::path& folder, int64_t num_labels, uint64_t seed) {
  LoadedEncoder loaded = load_encoder(folder, num_labels, seed);
  return {std::move(loaded.model), std::move(loaded.fresh), folder};
}

void save(const PyEncoder& encoder, const fs::path& folder) {
  AtomicDirectory directory(folder, /*replace=*/false);
  save_encoder(encoder.model, encoder.source, directory.path());
  directory.commit();
}

at::Tensor forward(
    PyEncoder& encoder,
    const at::Tensor& input_ids,
    const at::Tensor& lengths,
    const std::optional<at::Tensor>& token_type_ids,
    bool bfloat16) {
  const Autocast autocast(input_ids.device().type(), bfloat16);
  return encoder.model->forward(
      input_ids, lengths, token_type_ids.value_or(at::Tensor()));
}

std::vector<std::pair<std::string, at::Tensor>> named_parameters(
    const PyEncoder& encoder) {
  std::vector<std::pair<std::string, at::Tensor>> parameters;
  for (const auto& item : encoder.model->named_parameters()) {
    parameters.emplace_back(item.key(), item.value());
  }
  return parameters;
}

} // namespace

void bind_model(py::module_& m) {
  py::class_<PyEncoder>(m, "Encoder")
      .def_static(
          "load",
          &load,
          py::arg("folder"),
          py::arg("num_labels") = 0,
          py::arg("seed") = 0,
          py::call_guard<LongCall>())
      .def("save", &save, py::arg("folder"), py::call_guard<LongCall>())
      .def(
          "forward",
          &forward,
          py::arg("input_ids"),
          py::arg("lengths"),
          py::arg("token_type_ids") = py::none(),
          py::kw_only(),
          py::arg("bfloat16") = false,
          py::call_guard<LongCall>())
      .def("named_parameters", &named_parameters)
      .def(
          "train",
          [](py::object self, bool mode) {
            self.cast<PyEncoder&>().model->train(mode);
            return self;
          },
          py::arg("mode") = true)
      .def(
          "eval",
          [](py::object self) {
            self.cast<PyEncoder&>().model->eval();
            return self;
          })
      .def_property_readonly(
          "training", [](const PyEncoder& e) { return e.model->is_training(); })
      .def_property_readonly(
          "num_labels",
          [](const PyEncoder& e) { return e.model->config().num_labels; })
      .def_property_readonly(
          "max_length",
          [](const PyEncoder& e) { return e.model->config().max_length(); })
      .def_readonly("fresh", &PyEncoder::fresh);
}

} // namespace merganser::bindings
