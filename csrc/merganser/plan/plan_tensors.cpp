#include "merganser/plan/plan_tensors.h"

#include <algorithm>

#include "merganser/base/quote.h"
#include "merganser/plan/check_tensors.h"
#include "merganser/plan/compare_tensors.h"
#include "merganser/plan/tensor_planner.h"
#include "merganser/recipe/layer_name.h"

namespace merganser {
namespace {

class Planner {
 public:
  Planner(MergePlan& plan, Problems& problems)
      : plan_(plan),
        problems_(problems),
        reference_(*plan.inputs[plan.reference_weights]) {}

  void add_whole() {
    std::vector<std::string> names;
    for (const TensorInfo& tensor : reference_.tensors()) {
      names.push_back(tensor.name);
    }
    const std::vector<double> depths = layer_depths(names);
    const PlanSlice& slice = plan_.slices.front();
    for (size_t i = 0; i < names.size(); ++i) {
      add(slice, same_names(slice, names[i], depths[i]));
    }
    if (!plan_.base) {
      for (const auto& name : added_tensors(plan_, slice.models[slice.first])) {
        add(slice, same_names(slice, name, kOuterDepth));
      }
    }
  }

  void add_slices() {
    for (const TensorInfo& tensor : reference_.tensors()) {
      if (!layer_of(tensor.name)) {
        const PlanSlice& slice = is_before_layers(tensor.name)
            ? plan_.slices.front()
            : plan_.slices.back();
        add(slice, same_names(slice, tensor.name, kOuterDepth));
      }
    }
    check_outer(plan_.slices.front(), /*before=*/true);
    check_outer(plan_.slices.back(), /*before=*/false);
    int output_layer = 0;
    for (const PlanSlice& slice : plan_.slices) {
      const RecipeModel& first = slice.models.front().recipe;
      const int count = first.last_layer - first.first_layer;
      for (int i = 0; i < count; ++i, ++output_layer) {
        add_layer(slice, i, output_layer, layer_depth(i, count));
      }
    }
  }

 private:
  static TensorNames same_names(
      const PlanSlice& slice,
      const std::string& name,
      double depth) {
    return {
        name, name, std::vector<std::string>(slice.models.size(), name), depth};
  }

  void add_layer(
      const PlanSlice& slice,
      int i,
      int output_layer,
      double depth) {
    const PlanModel& first = slice.models[slice.first];
    const int source = first.recipe.first_layer + i;
    bool found = false;
    for (const PlanModel& model : slice.models) {
      check_extra(first, model, i);
    }
    const NamedCheckpoint weights = plan_.named(first.weights);
    for (const TensorInfo& tensor : weights.file.tensors()) {
      if (layer_of(tensor.name) != source) {
        continue;
      }
      found = true;
      const std::string& name = weights.name_of(tensor);
      TensorNames names;
      names.output = with_layer(name, output_layer);
      names.base = with_layer(name, slice.base_first_layer + i);
      for (const PlanModel& model : slice.models) {
        names.models.push_back(with_layer(name, model.recipe.first_layer + i));
      }
      names.depth = depth;
      add(slice, names);
    }
    if (!found) {
      problems_.add(fmt::format(
          "{} has no layer {}", first.recipe.model.string(), source));
    }
  }

  // Reports tensors before or after the layers that the reference lacks: the
  // merge would drop them silently.
  void check_outer(const PlanSlice& slice, bool before) {
    for (const PlanModel& model : slice.models) {
      const NamedCheckpoint weights = plan_.named(model.weights);
      for (const TensorInfo& tensor : weights.file.tensors()) {
        if (!layer_of(tensor.name) && is_before_layers(tensor.name) == before &&
            !plan_.is_head(weights.name_of(tensor)) &&
            is_extra(weights, tensor, reference_)) {
          problems_.add(fmt::format(
              "{} has tensor {}, which {} lacks",
              model.recipe.model.string(),
              quote(tensor.name),
              reference_.path().string()));
        }
      }
    }
  }

  // Reports tensors of a model's layer that the first model's layer lacks.
  void check_extra(const PlanModel& first, const PlanModel& model, int i) {
    const NamedCheckpoint weights = plan_.named(model.weights);
    for (const TensorInfo& tensor : weights.file.tensors()) {
      if (layer_of(tensor.name) == model.recipe.first_layer + i &&
          !is_constant_tensor(tensor) &&
          plan_.named(first.weights)
                  .find(with_layer(
                      weights.name_of(tensor), first.recipe.first_layer + i)) ==
              nullptr) {
        problems_.add(fmt::format(
            "{} has tensor {}, which layer {} of {} lacks",
            model.recipe.model.string(),
            quote(tensor.name),
            first.recipe.first_layer + i,
            first.recipe.model.string()));
      }
    }
  }

  void add(const PlanSlice& slice, const TensorNames& names) {
    problems_.collect(
        [&] { plan_.tensors.push_back(plan_tensor(plan_, slice, names)); });
  }

  MergePlan& plan_;
  Problems& problems_;
  const Checkpoint& reference_;
};

// True if both are merged from the same data.
bool has_same_sources(const TensorPlan& a, const TensorPlan& b) {
  return a.action == TensorAction::kMerge && b.action == TensorAction::kMerge &&
      std::ranges::equal(
             a.sources,
             b.sources,
             [](const TensorSource& x, const TensorSource& y) {
               return x.update == nullptr && y.update == nullptr &&
                   same_bytes(x.tensor, y.tensor);
             });
}

// Gives tied tensors that are stored twice the same random choices, as where
// they are stored once. Compares tensors outside the layers.
void tie_draws(MergePlan& plan) {
  if (!plan.recipe.method->is_random()) {
    return;
  }
  std::vector<TensorPlan*> rest;
  for (TensorPlan& tensor : plan.tensors) {
    if (!layer_of(tensor.output.name)) {
      rest.push_back(&tensor);
    }
  }
  while (!rest.empty()) {
    const TensorPlan* first = rest.front();
    const auto others = std::ranges::partition(rest, [&](const TensorPlan* x) {
      return x != first && !has_same_sources(*first, *x);
    });
    std::vector<std::string> tied;
    for (const TensorPlan* tensor : others) {
      tied.push_back(tensor->output.name);
    }
    for (TensorPlan* tensor : others) {
      tensor->drawn_as = canonical_name(tied);
    }
    rest.erase(others.begin(), others.end());
  }
}

} // namespace

void plan_tensors(MergePlan& plan, Problems& problems) {
  Planner planner(plan, problems);
  if (plan.recipe.slices.empty()) {
    planner.add_whole();
  } else {
    planner.add_slices();
  }
  tie_draws(plan);
}

} // namespace merganser
