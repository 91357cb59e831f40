#include "merganser/plan/tensor_planner.h"

#include <fmt/format.h>

#include <algorithm>

#include "merganser/base/error.h"
#include "merganser/base/quote.h"
#include "merganser/plan/check_tensors.h"

namespace merganser {
namespace {

class RowPlanner {
 public:
  RowPlanner(
      const MergePlan& plan,
      const PlanSlice& slice,
      const TensorNames& names)
      : plan_(plan), slice_(slice), names_(names) {}

  TensorPlan row() const {
    const MethodInfo& method = *plan_.recipe.method;
    const size_t like_input =
        plan_.base ? *plan_.base : slice_.models[slice_.first].weights;
    const Checkpoint& like = *plan_.inputs[like_input];
    const std::string& like_name =
        plan_.base ? names_.base : names_.models[slice_.first];
    TensorPlan row;
    row.output = like.at(like_name).info();
    row.output.name = names_.output;
    if (plan_.recipe.heads != HeadMode::kMerge &&
        is_head_tensor(names_.output)) {
      row.action = TensorAction::kCopy;
      row.reason = "the base's head";
    } else if (tensor_kind(row.output.dtype) == TensorKind::kInteger) {
      row.action = TensorAction::kCopy;
      row.reason = plan_.base ? "the base's integers" : "integers that agree";
    }
    if (row.action == TensorAction::kCopy) {
      row.sources = {{like.at(like_name), like_input}};
    } else {
      add_grams(row);
      add_sources(row);
      add_parameters(row);
      row.float64 = plan_.recipe.float64 || !row.grams.empty();
      for (const TensorSource& source : row.sources) {
        row.float64 |= source.tensor.info().dtype == DType::kF64;
        check(source, row.output);
      }
      row.output.dtype = plan_.recipe.out_dtype.value_or(row.output.dtype);
      if (keeps_bytes(method, row)) {
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

 private:
  void add_sources(TensorPlan& row) const {
    const MethodInfo& method = *plan_.recipe.method;
    if (method.needs_base) {
      row.sources.push_back(
          {plan_.inputs[*plan_.base]->at(names_.base), *plan_.base});
    }
    const bool fishers = row.grams.empty();
    if (method.needs_base_fisher && fishers) {
      row.sources.push_back(
          {plan_.inputs[*plan_.base_fisher]->at(names_.base),
           *plan_.base_fisher,
           /*is_fisher=*/true});
    }
    for (size_t t = 0; t < slice_.models.size(); ++t) {
      const PlanModel& model = slice_.models[t];
      TensorSource source = {
          plan_.inputs[model.weights]->at(names_.models[t]), model.weights};
      if (model.adapter) {
        source.update = model.adapter->find(names_.models[t]);
        if (const auto whole = model.adapter->replacement(names_.models[t])) {
          source.tensor = *whole;
          source.input = input_of(model.adapter->checkpoint());
        }
      }
      row.sources.push_back(source);
      row.scales.push_back(model.scale);
    }
    for (size_t t = 0; t < slice_.models.size(); ++t) {
      if (const auto fisher = slice_.models[t].fisher; fisher && fishers) {
        row.sources.push_back(
            {plan_.inputs[*fisher]->at(names_.models[t]),
             *fisher,
             /*is_fisher=*/true});
      }
    }
  }

  // The Gram matrices of all models and, if the method uses it, of the base; or
  // of none.
  void add_grams(TensorPlan& row) const {
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
      add(*plan_.base_gram, names_.base, plan_.base_gram_scale);
    }
    for (size_t t = 0; t < slice_.models.size(); ++t) {
      const PlanModel& model = slice_.models[t];
      if (model.gram) {
        add(*model.gram, names_.models[t], model.gram_scale);
      }
    }
    if (!row.grams.empty() && row.grams.size() < wanted) {
      throw InputError(fmt::format(
          "{} has no Gram matrix for tensor {}, and others have one",
          without->path().string(),
          quote(names_.output)));
    }
  }

  size_t input_of(const Checkpoint& checkpoint) const {
    const auto found = std::ranges::find_if(
        plan_.inputs,
        [&](const auto& input) { return input->path() == checkpoint.path(); });
    return found - plan_.inputs.begin();
  }

  void add_parameters(TensorPlan& row) const {
    std::vector<const Settings*> models;
    for (const PlanModel& model : slice_.models) {
      models.push_back(&model.recipe.parameters);
    }
    const TensorPlace place = {names_.output, names_.models, names_.depth};
    for (size_t output = 0; output < plan_.outputs.size(); ++output) {
      row.parameters.push_back(resolve_parameters(
          plan_.recipe, models, slice_.parameters, place, output));
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

  const MergePlan& plan_;
  const PlanSlice& slice_;
  const TensorNames& names_;
};

} // namespace

bool keeps_bytes(const MethodInfo& method, const TensorPlan& row) {
  return method.weights == WeightRule::kScale && row.parameters.size() == 1 &&
      row.parameters[0].weights[0] == 1 &&
      row.output.dtype == row.sources[0].tensor.info().dtype &&
      row.sources[0].update == nullptr;
}

TensorPlan plan_tensor(
    const MergePlan& plan,
    const PlanSlice& slice,
    const TensorNames& names) {
  return RowPlanner(plan, slice, names).row();
}

} // namespace merganser
