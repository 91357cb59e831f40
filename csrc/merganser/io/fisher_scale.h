#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "merganser/base/api.h"
#include "merganser/io/task_vector.h"

namespace merganser {

// A measured factor of a Fisher, part of its file: along the path from its
// model to a merge the loss has the curvature of `scale` times F.
// docs/method.md, "The scale of a Fisher".
struct MERGANSER_API FisherScale {
  Estimate scale; // the standard error is that of the loss
  std::string merge_hash; // Checkpoint::content_hash() of the merge
  int64_t num_examples_used = 0;

  std::string to_json() const;
  // Throws InputError naming the file for a text that to_json did not write.
  static FisherScale parse(
      const std::string& json,
      const std::filesystem::path& file);
};

} // namespace merganser
