#pragma once

#include <stdexcept>

#include "merganser/base/api.h"

namespace merganser {

// A failure while working (disk full, a file that changed during the run): exit
// code 1. The message is one sentence that names the file, tensor or line and
// says what to do.
class MERGANSER_API Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Invalid input (arguments, files, recipes): exit code 2.
class MERGANSER_API InputError : public Error {
 public:
  using Error::Error;
};

// Thrown after Ctrl-C or a request to terminate.
class MERGANSER_API Interrupted : public Error {
 public:
  using Error::Error;
};

} // namespace merganser
