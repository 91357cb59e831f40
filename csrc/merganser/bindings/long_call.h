#pragma once

#include "merganser/bindings/pybind.h"

namespace merganser::bindings {

// For functions that may take longer than a moment:
//   m.def("f", &f, py::call_guard<LongCall>());
// Releases the GIL for the time of the call and lets Ctrl-C end it. A
// ProgressCallback argument takes the GIL back by itself whenever it is called
// (pybind11/functional.h), and what it raises ends the call too.
class LongCall {
 public:
  LongCall();
  ~LongCall();
  LongCall(const LongCall&) = delete;
  LongCall& operator=(const LongCall&) = delete;

 private:
  py::gil_scoped_release released_;
};

// Makes check_interrupt() of base/interrupt.h ask Python for signals.
void install_python_interrupts();

} // namespace merganser::bindings
