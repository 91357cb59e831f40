#include "merganser/bindings/long_call.h"
#include "merganser/bindings/module.h"
#include "merganser/text/dataset.h"
#include "merganser/text/tokenizer.h"

namespace merganser::bindings {

void bind_text(py::module_& m) {
  py::class_<Tokenizer>(m, "Tokenizer")
      .def_static(
          "load",
          &Tokenizer::load,
          py::arg("folder"),
          py::call_guard<LongCall>())
      .def(
          "encode",
          &Tokenizer::encode,
          py::arg("text"),
          py::arg("max_length"),
          py::call_guard<LongCall>())
      .def(
          "encode_pair",
          [](const Tokenizer& tokenizer,
             const std::string& text,
             const std::string& pair,
             int64_t max_length) {
            const Encoding encoding =
                tokenizer.encode_pair(text, pair, max_length);
            return std::pair(encoding.ids, encoding.token_types);
          },
          py::arg("text"),
          py::arg("text_pair"),
          py::arg("max_length"),
          py::call_guard<LongCall>())
      .def(
          "encode_batch",
          &encode_batch,
          py::arg("texts"),
          py::arg("max_length"),
          py::arg("threads") = 0,
          py::call_guard<LongCall>())
      .def_property_readonly("vocab_size", &Tokenizer::vocab_size)
      .def_property_readonly("pad_id", &Tokenizer::pad_id);

  py::class_<TextExample>(m, "TextExample")
      .def_readonly("text", &TextExample::text)
      .def_readonly("label", &TextExample::label)
      .def_readonly("line", &TextExample::line)
      .def_readonly("text_pair", &TextExample::text_pair);
  m.def(
      "read_examples",
      [](const std::filesystem::path& path, const LabelNames& names) {
        return read_examples(path, names);
      },
      py::arg("path"),
      py::arg("names") = LabelNames(),
      py::call_guard<LongCall>());
}

} // namespace merganser::bindings
