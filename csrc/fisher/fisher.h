#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "io/api.h"
#include "io/progress.h"
#include "model/encoder.h"
#include "text/dataset.h"

namespace merganser {

enum class Estimator { kExact, kMc, kEmpirical, kMcBatch };
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

// The mean Fisher diagonal with what a merge must know of it.
struct MERGANSER_API FisherResult {
  std::vector<std::pair<std::string, at::Tensor>> diagonal; // float32, mean F
  std::string estimator;
  int64_t num_examples = 0; // N of the data set: H = N F
  int64_t num_examples_used = 0;
  int64_t samples = 1;
  uint64_t seed = 0;
  std::string labels; // "model", "data"
  std::string model_hash; // Checkpoint::content_hash() of the model it is of

  // The file format of docs/method.md: safetensors, the checkpoint's names.
  void save(const std::filesystem::path& file) const;
};

// 1/N sum_i E[(gradient of log p(y | x_i))^2], squares per example, model in
// eval mode (and left in the mode it was in). The formulas of each estimator
// are in docs/method.md, section 3.
MERGANSER_API FisherResult estimate_fisher(
    Encoder& model,
    const Dataset& data,
    int32_t pad_id,
    const FisherOptions& options,
    const ProgressCallback& progress = {});

} // namespace merganser
