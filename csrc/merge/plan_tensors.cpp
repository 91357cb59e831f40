#include "merge/plan_tensors.h"

#include <algorithm>

#include "io/quote.h"
#include "merge/layer_name.h"
#include "merge/tensor_checks.h"

namespace merganser {
namespace {

// A tensor of the output, by its names in what it is made of.
struct Names {
  std::string output;
  std::string base;
  std::vector<std::string> models;
  double depth = 0;
};

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
      add(slice, same_names(slice, reference_.tensors()[i], depths[i]));
    }
  }

  void add_slices() {
    for (const TensorInfo& tensor : reference_.tensors()) {
      if (!layer_of(tensor.name)) {
        const PlanSlice& slice = is_before_layers(tensor.name)
            ? plan_.slices.front()
            : plan_.slices.back();
        add(slice, same_names(slice, tensor, kOuterDepth));
      }
    }
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
  static Names same_names(
      const PlanSlice& slice,
      const TensorInfo& tensor,
      double depth) {
    return {
        tensor.name,
        tensor.name,
        std::vector<std::string>(slice.models.size(), tensor.name),
        depth};
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
    for (const TensorInfo& tensor : plan_.inputs[first.weights]->tensors()) {
      if (layer_of(tensor.name) != source) {
        continue;
      }
      found = true;
      Names names;
      names.output = with_layer(tensor.name, output_layer);
      names.base = with_layer(tensor.name, slice.base_first_layer + i);
      for (const PlanModel& model : slice.models) {
        names.models.push_back(
            with_layer(tensor.name, model.recipe.first_layer + i));
      }
      names.depth = depth;
      add(slice, names);
    }
    if (!found) {
      problems_.add(fmt::format(
          "{} has no layer {}", first.recipe.model.string(), source));
    }
  }

  // A tensor of a model's layer that the first model's has not.
  void check_extra(const PlanModel& first, const PlanModel& model, int i) {
    for (const TensorInfo& tensor : plan_.inputs[model.weights]->tensors()) {
      if (layer_of(tensor.name) == model.recipe.first_layer + i &&
          plan_.inputs[first.weights]->find(with_layer(
              tensor.name, first.recipe.first_layer + i)) == nullptr) {
        problems_.add(fmt::format(
            "{} has tensor {}, and layer {} of {} has none of the kind",
            model.recipe.model.string(),
            quote(tensor.name),
            first.recipe.first_layer + i,
            first.recipe.model.string()));
      }
    }
  }

  void add(const PlanSlice& slice, const Names& names) {
    problems_.collect([&] { plan_.tensors.push_back(plan(slice, names)); });
  }

  // Throws what is wrong with it.
  TensorPlan plan(const PlanSlice& slice, const Names& names) {
    const MethodInfo& method = *plan_.recipe.method;
    const size_t like_input =
        plan_.base ? *plan_.base : slice.models[slice.first].weights;
    const Checkpoint& like = *plan_.inputs[like_input];
    const std::string& like_name =
        plan_.base ? names.base : names.models[slice.first];
    TensorPlan row;
    row.output = like.at(like_name).info();
    row.output.name = names.output;
    if (plan_.recipe.heads != HeadMode::kMerge &&
        is_head_tensor(names.output)) {
      row.action = TensorAction::kCopy;
      row.reason = "the base's head";
    } else if (tensor_kind(row.output.dtype) == TensorKind::kInteger) {
      row.action = TensorAction::kCopy;
      row.reason = plan_.base ? "the base's integers" : "integers that agree";
    }
    if (row.action == TensorAction::kCopy) {
      row.sources = {{like.at(like_name), like_input}};
    } else {
      add_grams(slice, names, row);
      add_sources(slice, names, row);
      add_parameters(slice, names, row);
      row.float64 = plan_.recipe.float64 || !row.grams.empty();
      for (const TensorSource& source : row.sources) {
        row.float64 |= source.tensor.info().dtype == DType::kF64;
        check(source, row.output);
      }
      row.output.dtype = plan_.recipe.out_dtype.value_or(row.output.dtype);
      if (method.weights == WeightRule::kScale && row.parameters.size() == 1 &&
          row.parameters[0].weights[0] == 1 &&
          row.output.dtype == row.sources[0].tensor.info().dtype &&
          row.sources[0].update == nullptr) {
        row.action = TensorAction::kCopy;
        row.reason = "of " +
            plan_.inputs[row.sources[0].input]->path().filename().string();
      }
    }
    for (const TensorSource& source : row.sources) {
      row.bytes_read += source.tensor.info().bytes();
      if (source.update != nullptr) {
        row.bytes_read +=
            source.update->a.info().bytes() + source.update->b.info().bytes();
      }
    }
    for (const GramSource& gram : row.grams) {
      row.bytes_read += gram.matrix.tensor.info().bytes();
    }
    return row;
  }

  void add_sources(const PlanSlice& slice, const Names& names, TensorPlan& row)
      const {
    const MethodInfo& method = *plan_.recipe.method;
    if (method.needs_base) {
      row.sources.push_back({reference_.at(names.base), *plan_.base});
    }
    const bool fishers = row.grams.empty();
    if (method.needs_base_fisher && fishers) {
      row.sources.push_back(
          {plan_.inputs[*plan_.base_fisher]->at(names.base),
           *plan_.base_fisher,
           /*is_fisher=*/true});
    }
    for (size_t t = 0; t < slice.models.size(); ++t) {
      const PlanModel& model = slice.models[t];
      TensorSource source = {
          plan_.inputs[model.weights]->at(names.models[t]), model.weights};
      if (model.adapter) {
        source.update = model.adapter->find(names.models[t]);
        if (const auto whole = model.adapter->replacement(names.models[t])) {
          source.tensor = *whole;
          source.input = input_of(model.adapter->checkpoint());
        }
      }
      row.sources.push_back(source);
      row.scales.push_back(model.scale);
    }
    for (size_t t = 0; t < slice.models.size(); ++t) {
      if (const auto fisher = slice.models[t].fisher; fisher && fishers) {
        row.sources.push_back(
            {plan_.inputs[*fisher]->at(names.models[t]),
             *fisher,
             /*is_fisher=*/true});
      }
    }
  }

  // The Gram matrices of all models and, if the method uses it, of the base; or
  // of none.
  void add_grams(const PlanSlice& slice, const Names& names, TensorPlan& row)
      const {
    size_t wanted = 0;
    const Checkpoint* without = nullptr;
    const auto add = [&](size_t input, const std::string& name, double scale) {
      ++wanted;
      if (plan_.inputs[input]->find(name) == nullptr) {
        without = plan_.inputs[input].get();
      } else {
        row.grams.push_back({{plan_.inputs[input]->at(name), input}, scale});
      }
    };
    if (plan_.base_gram) {
      add(*plan_.base_gram, names.base, plan_.base_gram_scale);
    }
    for (size_t t = 0; t < slice.models.size(); ++t) {
      const PlanModel& model = slice.models[t];
      if (model.gram) {
        add(*model.gram, names.models[t], model.gram_scale);
      }
    }
    if (!row.grams.empty() && row.grams.size() < wanted) {
      throw InputError(fmt::format(
          "{} has no Gram matrix for tensor {}, and others have one",
          without->path().string(),
          quote(names.output)));
    }
  }

  size_t input_of(const Checkpoint& checkpoint) const {
    const auto found = std::ranges::find_if(
        plan_.inputs,
        [&](const auto& input) { return input->path() == checkpoint.path(); });
    return found - plan_.inputs.begin();
  }

  void add_parameters(
      const PlanSlice& slice,
      const Names& names,
      TensorPlan& row) const {
    std::vector<const Settings*> models;
    for (const PlanModel& model : slice.models) {
      models.push_back(&model.recipe.parameters);
    }
    const TensorPlace place = {names.output, names.models, names.depth};
    for (size_t output = 0; output < plan_.outputs.size(); ++output) {
      row.parameters.push_back(resolve_parameters(
          plan_.recipe, models, slice.parameters, place, output));
    }
  }

  // What compare_tensors has found where whole models are merged.
  static void check(const TensorSource& source, const TensorInfo& output) {
    const TensorInfo& info = source.tensor.info();
    if (info.shape != output.shape ||
        tensor_kind(info.dtype) != TensorKind::kFloat) {
      throw InputError(fmt::format(
          "{}: tensor {} is {} {}, and {} {} is to be made with it",
          source.tensor.file().string(),
          quote(info.name),
          dtype_name(info.dtype),
          info.shape_text(),
          quote(output.name),
          output.shape_text()));
    }
  }

  MergePlan& plan_;
  Problems& problems_;
  const Checkpoint& reference_;
};

} // namespace

void plan_tensors(MergePlan& plan, Problems& problems) {
  Planner planner(plan, problems);
  if (plan.recipe.slices.empty()) {
    planner.add_whole();
  } else {
    planner.add_slices();
  }
}

int count_layers(const Recipe& recipe) {
  int count = 0;
  for (const RecipeSlice& slice : recipe.slices) {
    const RecipeModel& first = slice.models.front();
    count += first.last_layer - first.first_layer;
  }
  return count;
}

} // namespace merganser
