#pragma once

#include "merganser/base/api.h"

namespace merganser {

// Makes SIGINT, SIGTERM and SIGHUP set a flag instead of ending the process, so
// that destructors run and temporary files are removed; a second signal ends
// the process. A signal that the parent set to be ignored (nohup) stays
// ignored. A file size limit (SIGXFSZ) becomes an error of the write that hits
// it.
MERGANSER_API void install_interrupt_handler();

// Throws Interrupted after a signal. Long loops call it once per unit of
// work (a tensor, a batch).
MERGANSER_API void check_interrupt();

// Replaces the check for a signal, e.g. by PyErr_CheckSignals in the Python
// module; the hook throws to stop the work. Null restores the default check.
using InterruptHook = void (*)();
MERGANSER_API void set_interrupt_hook(InterruptHook hook);

} // namespace merganser
