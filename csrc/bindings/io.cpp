#include "bindings/long_call.h"
#include "io/checkpoint.h"

namespace merganser::bindings {

void bind_io(py::module_& m) {
  m.def(
      "content_hash",
      [](const std::filesystem::path& path) {
        return Checkpoint(path).content_hash();
      },
      py::arg("path"),
      py::call_guard<LongCall>());
}

} // namespace merganser::bindings
