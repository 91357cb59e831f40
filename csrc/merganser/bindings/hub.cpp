#include "merganser/bindings/call_python.h"
#include "merganser/bindings/module.h"
#include "merganser/io/hub_cache.h"

namespace merganser::bindings {
namespace {

void download(const HubModel& model, const std::filesystem::path& cache) {
  call_python([&] {
    py::module_::import("merganser._hub.download")
        .attr("download")(model.name, model.revision, cache.string());
  });
}

} // namespace

void bind_hub(py::module_& m) {
  set_hub_download(&download);
  m.def(
      "find_model",
      [](const std::filesystem::path& path) { return find_model(path); },
      py::arg("path"));
  m.def(
      "parse_hub_model",
      [](const std::string& text)
          -> std::optional<std::pair<std::string, std::string>> {
        if (const auto model = parse_hub_model(text)) {
          return std::pair(model->name, model->revision);
        }
        return std::nullopt;
      },
      py::arg("text"));
  m.def("hub_cache", &hub_cache);
}

} // namespace merganser::bindings
