#pragma once

#include <filesystem>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/base/progress.h"
#include "merganser/objective/groups.h"
#include "merganser/objective/joint_objective.h"
#include "merganser/objective/mismatch_result.h"

namespace merganser {

// Measures the gradient mismatch of models (docs/method.md, section 2). The
// experts' gradients are computed once. Memory: T + 7 float32 arrays of the
// parameters' size for T tasks, and one model while it is read; data are
// streamed.
class MERGANSER_API MismatchMeter {
 public:
  // `groups`: also norms per group; kGlobal: none. `models`: those to measure,
  // which are checked before any pass over the data. Computes the gradient of
  // each task at its expert; progress counts examples. Throws InputError for
  // invalid inputs and for gradients that are not finite.
  MismatchMeter(
      const ObjectiveOptions& options,
      Grouping groups,
      const std::vector<std::filesystem::path>& models = {},
      const ProgressCallback& progress = {});

  enum class Role { kCandidate, kTarget };
  // A target also gets its identity, which needs the base's Fisher.
  ModelMismatch measure(
      const std::filesystem::path& model,
      Role role = Role::kCandidate,
      const ProgressCallback& progress = {});

  // The result without models.
  MismatchResult header() const;

 private:
  // Computes task t's gradient at the arena's parameters, those of `model`.
  void compute_gradient(
      size_t t,
      const std::filesystem::path& model,
      const ProgressCallback& progress);
  int64_t parameters() const; // number of elements
  int64_t examples() const; // used by all tasks together
  MismatchRow norms(const at::Tensor& mismatch, const at::Tensor& explained);
  TargetIdentity identity(const at::Tensor& mismatch);

  JointObjective objective_;
  bool with_groups_;
  ParameterGroups groups_;
  std::vector<at::Tensor> expert_gradients_; // a_t times that of l_t, (n) each
};

} // namespace merganser
