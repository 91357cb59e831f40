#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "merganser/model/encoder.h"

namespace merganser::bindings {

// An encoder and its source directory: a saved copy has the same config and
// tokenizer.
struct PyEncoder {
  Encoder model;
  std::vector<std::string> fresh;
  std::filesystem::path source;
};

} // namespace merganser::bindings
