#pragma once

// Everything is built with hidden visibility; this marks what other libraries,
// executables and tests may use.
#define MERGANSER_API __attribute__((visibility("default")))
