#pragma once

#include <optional>

#include "merganser/base/api.h"
#include "merganser/fisher/fisher.h"
#include "merganser/train/adamw.h"
#include "merganser/train/arena.h"

namespace merganser {

// The Fisher diagonal that a training run collects over its last epoch. With G
// the sum (not the mean) of a batch's per-example gradients and N the examples
// of those batches, both estimates are  sum G^2 / N:
//   adam       G of the gradients that the optimiser sees, labels of the data;
//   online_mc  G of an extra backward pass of the step's graph, with its
//              dropout, at every k-th step, labels sampled from the model;
//   online_mc_eval  the same with a forward pass of its own, without dropout.
// G^2 / B is B times the squared batch mean, so that it is comparable with
// the mean of per-example squares (docs/method.md, section 3).
class MERGANSER_API OnlineFisher {
 public:
  explicit OnlineFisher(const Arena& arena);

  // adam: the mean gradient of `examples` examples is about to be consumed by
  // AdamW::step, which adds its square to the sum.
  AdamW::SquareSum next_step(int64_t examples);

  // online_mc, online_mc_eval: adds G^2 of one batch, given its logits (B, K)
  // and positions in the data set (B). Leaves the arena's gradients zero; they
  // must be on entry. `keep_graph`: another backward pass of the logits' graph
  // follows.
  void add_sampled(
      const Arena& arena,
      const at::Tensor& logits,
      const at::Tensor& indices,
      uint64_t seed,
      int64_t epoch,
      bool keep_graph);

  // The mean, which a merge reads. The caller sets the metadata other than the
  // number of examples used.
  FisherResult result(const Arena& arena) const;

  at::Tensor sum; // (n)
  int64_t examples = 0; // N
};

} // namespace merganser
