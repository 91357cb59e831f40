#pragma once

#include <filesystem>
#include <string>

#include "merganser/base/api.h"
#include "merganser/train/arena.h"

namespace merganser {

// The proximal term  weight / (2 N_t) * ||theta - theta_0||^2_{H_0}  of the
// mean loss, with H_0 = N_0 F_0 from a Fisher file of the model that training
// starts from, and theta_0 the arena's parameters at construction. Its gradient
// is added to the loss's, before clipping: unlike a decoupled decay, this keeps
// the minimiser of loss + term that docs/method.md, section 2, assumes,
// whatever Adam divides by.
class MERGANSER_API Proximal {
 public:
  // Throws InputError when the file lacks a tensor, has one of another shape,
  // or belongs to another model.
  Proximal(
      const Arena& arena,
      const std::filesystem::path& fisher,
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
  at::Tensor precision_; // weight H_0 / N_t (n)
};

} // namespace merganser
