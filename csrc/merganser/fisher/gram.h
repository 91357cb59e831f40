#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/base/progress.h"
#include "merganser/model/encoder.h"
#include "merganser/text/dataset.h"

namespace merganser {

struct GramOptions {
  int64_t limit = -1; // number of examples, sampled with `seed`; -1: all
  uint64_t seed = 0;
  int64_t batch_size = 32;
  bool bfloat16 = false; // autocast; products and sums of inputs stay float32
};

// Mean Gram matrices of linear layers' inputs.
struct MERGANSER_API GramResult {
  // Name of a weight (out, in) -> (in, in), float32.
  std::vector<std::pair<std::string, at::Tensor>> matrices;
  int64_t num_examples = 0; // N of the data set, by which a merge scales them
  int64_t num_examples_used = 0;
  std::string model_hash; // Checkpoint::content_hash() of the model

  // See write_fisher_file.
  void save(const std::filesystem::path& file) const;
};

// Computes 1/N sum_i sum_l a_il a_il^T for every linear layer, over the inputs
// a_il (in,) at the tokens l of example i without padding, with the model in
// eval mode (its mode is restored). Progress counts examples. The caller sets
// the result's model_hash. Throws InputError for options out of range. Source:
// Jin et al., arXiv 2212.09849, section 3; docs/method.md, section 2.
MERGANSER_API GramResult estimate_gram(
    Encoder& model,
    const Dataset& data,
    int32_t pad_id,
    const GramOptions& options,
    const ProgressCallback& progress = {});

} // namespace merganser
