#pragma once

#include <pybind11/functional.h>
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>
#include <torch/csrc/utils/pybind.h>

namespace merganser::bindings {

namespace py = pybind11;

} // namespace merganser::bindings
