#pragma once

#include "merganser/bindings/pybind.h"

namespace merganser::bindings {

// Call guard of long-running functions:
//   m.def("f", &f, py::call_guard<LongCall>());
// Releases the GIL during the call and lets Ctrl-C end it. A ProgressCallback
// argument acquires the GIL whenever it is called (pybind11/functional.h); an
// exception from it ends the call too.
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
