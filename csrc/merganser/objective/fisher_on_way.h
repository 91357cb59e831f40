#pragma once

#include <cstdint>
#include <filesystem>

#include "merganser/base/api.h"
#include "merganser/base/progress.h"
#include "merganser/fisher/fisher_options.h"
#include "merganser/fisher/result.h"
#include "merganser/model/encoder.h"
#include "merganser/text/dataset.h"

namespace merganser {

// The path from a model to another with the same tensors, such as a merge.
struct FisherWay {
  std::filesystem::path model; // where it begins
  std::filesystem::path at; // where it ends
  // The Fisher is the mean over the midpoints of this many equal segments of
  // the path; 0: that at its end.
  int64_t points = 0;
};

// estimate_fisher at points of the path that begins at `model`, whose
// parameters are restored. Sets the result's `at`. Throws InputError for a
// model of other shapes at the end.
MERGANSER_API FisherResult estimate_fisher_on_way(
    Encoder& model,
    const FisherWay& way,
    const Dataset& data,
    int32_t pad_id,
    const FisherOptions& options,
    const ProgressCallback& progress = {});

} // namespace merganser
