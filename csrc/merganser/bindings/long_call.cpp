#include "merganser/bindings/long_call.h"

#include "merganser/base/interrupt.h"

namespace merganser::bindings {
namespace {

// Only the thread of a LongCall checks: the worker threads of a call that keeps
// the GIL would wait for it forever.
thread_local int long_calls = 0;

void check_python_signals() {
  if (long_calls == 0) {
    return;
  }
  py::gil_scoped_acquire gil;
  if (PyErr_CheckSignals() != 0) {
    throw py::error_already_set();
  }
}

} // namespace

LongCall::LongCall() {
  ++long_calls;
}

LongCall::~LongCall() {
  --long_calls;
}

void install_python_interrupts() {
  set_interrupt_hook(&check_python_signals);
}

} // namespace merganser::bindings
