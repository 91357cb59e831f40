#pragma once

#include <stdexcept>

#include "merganser/base/api.h"

namespace merganser {

// Something failed while working (disk full, a file that changed underneath):
// exit code 1. The message is one sentence that names the file, tensor or line
// and says what to do.
class MERGANSER_API Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// What the caller gave is wrong (arguments, files, recipes): exit code 2.
class MERGANSER_API InputError : public Error {
 public:
  using Error::Error;
};

// The user pressed Ctrl-C, or the process was asked to terminate.
class MERGANSER_API Interrupted : public Error {
 public:
  using Error::Error;
};

} // namespace merganser
