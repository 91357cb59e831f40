#include "merganser/fisher/fisher.h"

#include <fmt/format.h>

#include "merganser/base/error.h"
#include "merganser/bindings/encoder.h"
#include "merganser/bindings/long_call.h"
#include "merganser/bindings/module.h"
#include "merganser/eval/evaluate.h"
#include "merganser/fisher/directions.h"
#include "merganser/model/classifier.h"
#include "merganser/text/batching.h"

namespace merganser::bindings {
namespace {

using Ids = std::vector<std::vector<int32_t>>;

Dataset make_dataset(Ids ids, std::vector<int64_t> labels) {
  if (ids.empty() || ids.size() != labels.size()) {
    throw InputError(fmt::format(
        "Dataset: expected one label per text and at least one text, got {} "
        "texts and {} labels",
        ids.size(),
        labels.size()));
  }
  return {{}, std::move(ids), std::move(labels)};
}

Dataset load_dataset_for(
    const std::filesystem::path& file,
    const std::filesystem::path& model,
    int64_t max_length,
    int64_t num_labels) {
  return load_data(
      file,
      *Tokenizer::load(model),
      EncoderConfig::read(model, num_labels),
      max_length);
}

FisherResult estimate(
    PyEncoder& encoder,
    const Dataset& data,
    int32_t pad_id,
    const std::string& estimator,
    int64_t samples,
    int64_t limit,
    uint64_t seed,
    int64_t batch_size,
    bool bfloat16,
    const ProgressCallback& progress) {
  return estimate_fisher(
      encoder.model,
      data,
      pad_id,
      {.estimator = parse_estimator(estimator),
       .samples = samples,
       .limit = limit,
       .seed = seed,
       .batch_size = batch_size,
       .bfloat16 = bfloat16},
      progress);
}

EvalResult evaluate_encoder(
    PyEncoder& encoder,
    const Dataset& data,
    int32_t pad_id,
    int64_t batch_size,
    bool bfloat16,
    const ProgressCallback& progress) {
  return evaluate(encoder.model, data, pad_id, batch_size, bfloat16, progress);
}

} // namespace

void bind_fisher(py::module_& m) {
  m.def("exact_directions", &exact_directions, py::arg("logits"));
  m.def(
      "label_direction",
      &label_direction,
      py::arg("logits"),
      py::arg("labels"));

  py::class_<Dataset>(m, "Dataset")
      .def(py::init(&make_dataset), py::arg("ids"), py::arg("labels"))
      .def_static(
          "load",
          &load_dataset_for,
          py::arg("file"),
          py::arg("model"),
          py::kw_only(),
          py::arg("max_length"),
          py::arg("num_labels"),
          py::call_guard<LongCall>())
      .def("__len__", &Dataset::size)
      .def_readonly("ids", &Dataset::ids)
      .def_readonly("labels", &Dataset::labels)
      .def_readonly("token_types", &Dataset::token_types);

  py::class_<FisherResult>(m, "EncoderFisher")
      .def_readonly("diagonal", &FisherResult::diagonal)
      .def_readonly("estimator", &FisherResult::estimator)
      .def_readonly("num_examples", &FisherResult::num_examples)
      .def_readonly("num_examples_used", &FisherResult::num_examples_used)
      .def_readonly("samples", &FisherResult::samples)
      .def_readonly("seed", &FisherResult::seed)
      .def_readonly("labels", &FisherResult::labels)
      .def_readwrite("model_hash", &FisherResult::model_hash)
      .def(
          "save",
          &FisherResult::save,
          py::arg("file"),
          py::call_guard<LongCall>());
  m.def(
      "estimate_fisher",
      &estimate,
      py::arg("encoder"),
      py::arg("data"),
      py::arg("pad_id"),
      py::kw_only(),
      py::arg("estimator") = "exact",
      py::arg("samples") = 1,
      py::arg("limit") = -1,
      py::arg("seed") = 0,
      py::arg("batch_size") = 32,
      py::arg("bfloat16") = false,
      py::arg("progress") = ProgressCallback(),
      py::call_guard<LongCall>());

  m.def(
      "draw_subset",
      &draw_subset,
      py::arg("size"),
      py::arg("count"),
      py::arg("seed"));

  py::class_<EvalResult>(m, "EvalResult")
      .def_readonly("examples", &EvalResult::examples)
      .def_readonly("accuracy", &EvalResult::accuracy)
      .def_readonly("loss", &EvalResult::loss);
  m.def(
      "evaluate",
      &evaluate_encoder,
      py::arg("encoder"),
      py::arg("data"),
      py::arg("pad_id"),
      py::kw_only(),
      py::arg("batch_size") = 32,
      py::arg("bfloat16") = false,
      py::arg("progress") = ProgressCallback(),
      py::call_guard<LongCall>());
}

} // namespace merganser::bindings
