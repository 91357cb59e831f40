#pragma once

#include <filesystem>
#include <functional>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/base/progress.h"
#include "merganser/model/classifier.h"
#include "merganser/objective/objective_options.h"
#include "merganser/text/batching.h"
#include "merganser/text/dataset.h"
#include "merganser/train/arena.h"

namespace merganser {

// The negative log-likelihood (B) of each example of a batch, float64, with the
// probabilities `targets` (B, K) of the classes.
MERGANSER_API at::Tensor example_losses(
    const at::Tensor& logits,
    const at::Tensor& targets);

// The objective that merging approximates,
//   J(theta) = sum_t a_t l_t(theta) + 1/2 |theta - theta_0|^2_{H_0},
// where l_t is the sum of the negative log-likelihood over the N_t examples of
// task t, estimated as N_t / n times its sum over n of them, in eval mode, and
// H_0 = N_0 F_0. docs/method.md, section 2.
class MERGANSER_API JointObjective {
 public:
  struct Task {
    Dataset data;
    int32_t pad_id = 0;
    std::vector<int64_t> examples; // positions that are used, ascending
    double weight = 1; // a_t
    // N_t: the Fisher's number of examples, else that of the data.
    double num_examples = 0;
    at::Tensor targets; // (data.size(), K) probabilities of the classes

    // The factor a_t N_t / n of a sum over n examples.
    double scale(size_t n) const {
      return weight * num_examples / static_cast<double>(n);
    }
  };

  // Reads base, data and Fishers; the parameters are the base's.
  // Throws InputError for invalid options, models or data, for an expert of
  // other shapes than the base's, and for fewer examples than classes.
  explicit JointObjective(const ObjectiveOptions& options);

  // Parameters of a model of the base's shapes, as a flat array like the
  // arena's. Throws InputError for another model.
  at::Tensor read_model(const std::filesystem::path& folder) const;

  // Task t's expert and H_t = N_t F_t, read from their files; undefined: the
  // task has no Fisher.
  at::Tensor read_expert(size_t t) const;
  at::Tensor read_precision(size_t t) const;

  // Calls use(batch, logits, targets) for the batches of examples of task t,
  // longest examples first.
  using UseBatch = std::function<void(
      const Batch& batch,
      const at::Tensor& logits,
      const at::Tensor& targets)>;
  void for_each_batch(
      size_t t,
      const std::vector<int64_t>& examples,
      const UseBatch& use);

  // a_t l_t at arena().parameters, estimated from `examples`. The first adds
  // its gradient to arena().gradients. Progress counts examples.
  double add_gradient(
      size_t t,
      const std::vector<int64_t>& examples,
      const ProgressCallback& progress = {});
  double loss(size_t t, const std::vector<int64_t>& examples);

  Arena& arena() {
    return arena_;
  }
  const Arena& arena() const {
    return arena_;
  }
  Encoder& model() {
    return base_.encoder;
  }
  const std::vector<Task>& tasks() const {
    return tasks_;
  }
  std::vector<Task>& tasks() {
    return tasks_;
  }
  const ObjectiveOptions& options() const {
    return options_;
  }
  // H_0 (n); undefined without a Fisher of the base.
  const at::Tensor& base_precision() const {
    return base_precision_;
  }

 private:
  Task load_task(const ObjectiveTask& task) const;

  ObjectiveOptions options_;
  Classifier base_;
  Arena arena_;
  at::Tensor base_precision_;
  std::vector<Task> tasks_;
};

} // namespace merganser
