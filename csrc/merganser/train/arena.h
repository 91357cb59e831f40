#pragma once

#include <ATen/core/Tensor.h>
#include <torch/ordered_dict.h>

#include <string>
#include <vector>

#include "merganser/base/api.h"

namespace merganser {

// A model's parameters and gradients, each as one contiguous float32 array in
// which the named tensors are views: an optimiser step, clipping, a Fisher or a
// checkpoint is one pass over one array. Parameters with weight decay lie
// before those without, so that each group is a range.
//
// Every tensor begins at a multiple of 64 bytes: vector kernels run on aligned
// data and matrix products give the same bits wherever a tensor lies. The gaps
// are zero and stay zero in every elementwise computation.
class MERGANSER_API Arena {
 public:
  // Moves a model's named parameters into the arena and presets their
  // gradients, so that backward passes add to `gradients` in place.
  explicit Arena(const torch::OrderedDict<std::string, at::Tensor>& model);

  struct Entry {
    std::string name;
    int64_t offset;
    int64_t numel;
    std::vector<int64_t> shape;
  };

  at::Tensor parameters; // (n)
  at::Tensor gradients; // (n)
  int64_t decayed = 0; // elements [0, decayed) get weight decay
  const std::vector<Entry>& entries() const {
    return entries_;
  }
  // Makes the model compute with a flat array laid out like the arena, instead
  // of `parameters`. Backward passes still add to `gradients`.
  void compute_with(const at::Tensor& flat);

  // A named view into a flat array laid out like the arena.
  static at::Tensor view(const at::Tensor& flat, const Entry& entry);
  // A flat array of zeros laid out like the arena.
  at::Tensor zeros() const;

 private:
  std::vector<Entry> entries_;
  std::vector<at::Tensor> tensors_; // the model's, in the order of entries_
};

} // namespace merganser
