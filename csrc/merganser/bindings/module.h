#pragma once

#include "merganser/bindings/pybind.h"

// merganser._C has what a dispatcher schema cannot express: objects, paths,
// progress callbacks. Functions of tensors are operators (ops/library.cpp). One
// subject per file, each with one function here; module.cpp calls them all.
// python/merganser/_C.pyi has their types and documentation.
namespace merganser::bindings {

void bind_errors(py::module_& m);
void bind_hub(py::module_& m);
void bind_io(py::module_& m);
void bind_fisher(py::module_& m);
void bind_fisher_file(py::module_& m);
void bind_memory_merge(py::module_& m);
void bind_merge(py::module_& m);
void bind_model(py::module_& m);
void bind_subspace_file(py::module_& m);
void bind_text(py::module_& m);
void bind_train(py::module_& m);

} // namespace merganser::bindings
