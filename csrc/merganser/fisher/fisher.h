#pragma once

#include <cstdint>
#include <string>

#include "merganser/base/api.h"
#include "merganser/base/progress.h"
#include "merganser/fisher/result.h"
#include "merganser/model/encoder.h"
#include "merganser/text/dataset.h"

namespace merganser {

enum class Estimator { kExact, kMc, kEmpirical, kMcBatch };

// Throws InputError for a name that is not one of exact, mc, empirical,
// mc_batch.
MERGANSER_API Estimator parse_estimator(const std::string& name);
MERGANSER_API std::string estimator_name(Estimator estimator);

struct FisherOptions {
  Estimator estimator = Estimator::kExact;
  int64_t samples = 1; // mc, mc_batch: labels drawn per example
  int64_t limit = -1; // use this many examples, drawn with `seed`; < 0: all
  uint64_t seed = 0;
  int64_t batch_size = 32;
  bool bfloat16 = false; // autocast; the sums stay float32
};

// 1/N sum_i E[(gradient of log p(y | x_i))^2], squares per example, model in
// eval mode (and left in the mode it was in). The formulas of each estimator
// are in docs/method.md, section 3. Progress counts examples. The caller sets
// the result's model_hash. Throws InputError for options out of range.
MERGANSER_API FisherResult estimate_fisher(
    Encoder& model,
    const Dataset& data,
    int32_t pad_id,
    const FisherOptions& options,
    const ProgressCallback& progress = {});

} // namespace merganser
