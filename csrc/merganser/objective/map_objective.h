#pragma once

#include <optional>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/objective/joint_objective.h"
#include "merganser/objective/refine_options.h"
#include "merganser/train/proximal.h"

namespace merganser {

// The joint objective with its proximal term, on training examples and on
// held-out ones.
class MERGANSER_API MapObjective {
 public:
  // The parameters are those of options.model. Throws InputError for invalid
  // inputs, and where a task has too few examples to hold some out and to keep
  // one for each class.
  explicit MapObjective(const RefineOptions& options);

  // J, and its part without the proximal term: sum_t a_t N_t times a task's
  // mean loss.
  struct Value {
    double objective = 0;
    double losses = 0;
  };

  // Values at the arena's parameters; not finite where the model's outputs are
  // not.
  double training();
  Value held_out();

  // Sets the arena's gradients to those of J on the training examples, and
  // returns it; on batches of the tasks, if given.
  double gradient();
  double gradient(const std::vector<std::vector<int64_t>>& batches);

  JointObjective& joint() {
    return joint_;
  }
  Arena& arena() {
    return joint_.arena();
  }
  const at::Tensor& start() const { // theta_0
    return start_;
  }
  const std::vector<std::vector<int64_t>>& training_examples() const {
    return training_;
  }
  const std::vector<std::vector<int64_t>>& held_out_examples() const {
    return held_out_;
  }
  double total_weight() const; // sum_t a_t N_t

 private:
  Value value(const std::vector<std::vector<int64_t>>& examples);
  void split(size_t t, const RefineOptions& options);
  void predict_targets(size_t t);

  JointObjective joint_;
  at::Tensor start_;
  std::optional<Proximal> prior_;
  std::vector<std::vector<int64_t>> training_; // per task
  std::vector<std::vector<int64_t>> held_out_;
};

} // namespace merganser
