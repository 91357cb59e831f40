#include <c10/util/Exception.h>

#include "merganser/base/error.h"
#include "merganser/bindings/module.h"

namespace merganser::bindings {
namespace {

PyObject* error_type = nullptr;
PyObject* input_error_type = nullptr;

// Named after the package, not after _C: it is what users see and catch.
PyObject* new_exception(
    py::module_& m,
    const char* name,
    const char* doc,
    const py::tuple& bases) {
  const std::string qualified = std::string("merganser.") + name;
  PyObject* type = PyErr_NewExceptionWithDoc(
      qualified.c_str(), doc, bases.ptr(), /*dict=*/nullptr);
  if (type == nullptr) {
    throw py::error_already_set();
  }
  m.add_object(name, type);
  return type;
}

void translate(std::exception_ptr exception) {
  try {
    std::rethrow_exception(exception);
  } catch (const Interrupted& e) {
    PyErr_SetString(PyExc_KeyboardInterrupt, e.what());
  } catch (const InputError& e) {
    PyErr_SetString(input_error_type, e.what());
  } catch (const Error& e) {
    PyErr_SetString(error_type, e.what());
  } catch (const c10::Error& e) {
    PyErr_SetString(PyExc_RuntimeError, e.what_without_backtrace());
  }
}

} // namespace

void bind_errors(py::module_& m) {
  error_type = new_exception(
      m,
      "Error",
      "A failure during the work, such as a full disk.",
      py::make_tuple(py::handle(PyExc_RuntimeError)));
  input_error_type = new_exception(
      m,
      "InputError",
      "Invalid arguments, files or recipes. Says where, and how to fix it.",
      py::make_tuple(py::handle(error_type), py::handle(PyExc_ValueError)));
  py::register_local_exception_translator(&translate);
}

} // namespace merganser::bindings
