#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/io/subspace_file.h"
#include "merganser/io/task_vector.h"
#include "merganser/recipe/method.h"
#include "merganser/recipe/setting.h"

namespace merganser {

// A step of the rule of gradient matching in the span of the task vectors.
struct SubspaceWeights {
  std::vector<double> weights; // v_tg at t * G + g, for the experts used
  std::vector<bool> is_direction; // per expert used
  int64_t examples = 0; // of all losses
  double shrink = 0;
  // The change of the objective from the base that cross-validation expects,
  // with the standard error over the folds: negative is better. None with one
  // fold, as from diagonal Fishers.
  std::optional<Estimate> expected;
};

// Solves (H_0 + sum_t a_t H_t) v = sum_t a_t (H_t e_t - g_t) in the span of the
// task vectors of some experts, with H = N F and e_t = 1 on the columns of
// expert t: the minimum of the sum of a_t times the quadratic expansions of the
// experts' losses at theta_t, and of the base's at theta_0 without its
// gradient. docs/method.md, "The subspace of the task vectors".
//
// Directions have columns and no loss; their alphas are not used. The
// off-diagonals are multiplied by 1 - shrink. `shrink` kAuto: the largest
// of a few values whose cross-validated objective exceeds the best by at most
// one standard error of the difference; 0 with one fold. A column without
// curvature, as of a zero task vector, has weight 0. Where columns depend on
// one another, the solution is the one of smallest norm after each is scaled to
// curvature 1.
// Throws InputError for directions only. `experts`: positions in
// fisher.experts; `alphas`: one each.
MERGANSER_API SubspaceWeights solve_subspace(
    const SubspaceFisher& fisher,
    const std::vector<size_t>& experts,
    const std::vector<double>& alphas,
    double shrink);

// The same with the parameters of a merge. Where its weights are `auto`, all
// alphas are 1 and the shrinkage is chosen; `fisher` then has one group, and
// the solution is the weights.
MERGANSER_API SubspaceWeights solve_subspace(
    const SubspaceFisher& fisher,
    const std::vector<size_t>& experts,
    const MethodInfo& method,
    const std::vector<const Settings*>& models,
    const Settings& merge,
    size_t output);

// Throws InputError for a direction with a weight of its own in a recipe.
MERGANSER_API void check_no_weight(
    const SubspaceFisher::Loss& loss,
    const Settings& model,
    const std::string& label);

// Reason why the weights are unstable: fewer examples than weights, or no
// improvement on the base beyond one standard error by cross-validation. Empty
// if they are stable, and without cross-validation.
MERGANSER_API std::optional<std::string> unstable(const SubspaceWeights& found);

} // namespace merganser
