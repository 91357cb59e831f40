#pragma once

#include "merganser/base/api.h"

namespace merganser {

// Makes SIGINT, SIGTERM and SIGHUP set a flag instead of ending the process, so
// that destructors run and temporary files disappear; a second signal ends it.
// A signal that the parent made this process ignore (nohup) stays ignored. A
// file size limit (SIGXFSZ) becomes an error of the write that hits it.
MERGANSER_API void install_interrupt_handler();

// Throws Interrupted if a signal came. Long loops call it once per unit of
// work (a tensor, a batch).
MERGANSER_API void check_interrupt();

// Replaces the test for a signal, e.g. by PyErr_CheckSignals in the Python
// module; the function throws to stop the work. Null: the test as before.
using InterruptHook = void (*)();
MERGANSER_API void set_interrupt_hook(InterruptHook hook);

} // namespace merganser
