#pragma once

namespace merganser::app {

// Replaces this process by `merganser-torch` with the same arguments. Throws
// Error when it is not installed.
int start_torch(char** argv);

} // namespace merganser::app
