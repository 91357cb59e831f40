#pragma once

namespace merganser::app {

// Replaces this process with `merganser-torch` and the same arguments. Throws
// Error when it is not installed.
int start_torch(char** argv);

} // namespace merganser::app
