#pragma once

// Exports a symbol for other libraries, executables and tests; everything else
// is built with hidden visibility.
#define MERGANSER_API __attribute__((visibility("default")))
