#pragma once

#include "merganser/base/error.h"
#include "merganser/bindings/pybind.h"

namespace merganser::bindings {

// Calls a Python function during a call that has released the GIL. Its
// InputErrors become C++'s, to which a recipe adds the line.
template <typename Call>
auto call_python(const Call& call) {
  const py::gil_scoped_acquire gil;
  try {
    return call();
  } catch (const py::error_already_set& error) {
    if (error.matches(py::module_::import("merganser._C").attr("InputError"))) {
      throw InputError(std::string(py::str(error.value())));
    }
    throw;
  }
}

} // namespace merganser::bindings
