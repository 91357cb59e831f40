#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/train/arena.h"

namespace merganser {

// The proximal term  weight / (2 N_t) * ||theta - theta_0||^2_H  of the mean
// loss, with H = sum_s N_s F_s over Fisher files: of the model that training
// starts from and, in online elastic weight consolidation, of the models of
// earlier tasks. theta_0: the arena's parameters at construction. Its gradient
// is added to the loss's, before clipping: unlike a decoupled decay, this keeps
// the minimiser of loss + term that docs/method.md, section 2, assumes,
// whatever Adam divides by.
class MERGANSER_API Proximal {
 public:
  // Throws InputError when a file lacks a tensor or has one of another shape,
  // or when every file belongs to a different model than model_hash.
  Proximal(
      const Arena& arena,
      const std::vector<std::filesystem::path>& fishers,
      const std::string& model_hash,
      double weight,
      int64_t num_examples);
  // The term 1/2 |theta - start|^2 in the norm of a precision, flat arrays.
  Proximal(at::Tensor start, at::Tensor precision);

  // Adds the term's gradient to arena.gradients and returns the term.
  double add_gradient(const Arena& arena) const;
  double value(const Arena& arena) const;

 private:
  template <bool kGradient>
  double sum(const Arena& arena) const;

  at::Tensor start_; // theta_0 (n)
  at::Tensor precision_; // weight H / N_t (n)
  std::vector<int64_t> units_; // first elements where precision_ is not zero
};

} // namespace merganser
