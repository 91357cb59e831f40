#include "merganser/plan/tensor_planner.h"

#include <fmt/format.h>

#include <algorithm>

#include "merganser/base/error.h"
#include "merganser/base/quote.h"
#include "merganser/io/hub_cache.h"
#include "merganser/plan/check_tensors.h"
#include "merganser/plan/measured_rho.h"
#include "merganser/plan/measured_scale.h"
#include "merganser/plan/plan_grams.h"
#include "merganser/plan/plan_subspace.h"
#include "merganser/recipe/methods.h"

namespace merganser {
namespace {

class TensorPlanner {
 public:
  TensorPlanner(
      const MergePlan& plan,
      const PlanSlice& slice,
      const TensorNames& names)
      : plan_(plan),
        slice_(slice),
        names_(names),
        like_(
            plan.base ? source(*plan.base, names.base)
                      : first_source(
                            slice.models[slice.first],
                            names.models[slice.first])) {}

  TensorPlan run() const {
    TensorPlan tensor;
    tensor.method = plan_.recipe.method;
    tensor.num_models = slice_.models.size();
    tensor.output = like_.tensor.info();
    tensor.output.name = tensor.drawn_as = names_.output;
    tensor.reason = copy_reason();
    if (!tensor.reason.empty()) {
      tensor.action = TensorAction::kCopy;
      tensor.sources = {like_};
    } else if (is_copied()) {
      plan_copy(tensor);
    } else {
      plan_merge(tensor);
    }
    count_bytes(tensor);
    return tensor;
  }

 private:
  std::string copy_reason() const {
    if (plan_.is_head(names_.output)) {
      return "the base's head";
    }
    if (tensor_kind(like_.tensor.info().dtype) == TensorKind::kInteger) {
      return plan_.base ? "the base's integers" : "integers that agree";
    }
    if (is_constant_tensor(like_.tensor.info()) && a_model_lacks_it()) {
      return "a constant that a model lacks";
    }
    return "";
  }

  bool a_model_lacks_it() const {
    for (size_t t = 0; t < slice_.models.size(); ++t) {
      if (!plan_.named(slice_.models[t].weights).find(names_.models[t])) {
        return true;
      }
    }
    return false;
  }

  // True for a tensor without a Fisher, which is equal in all models. (Where
  // some Fishers have it, check_inputs has compared whole models.)
  bool is_copied() const {
    if (plan_.subspace && !plan_.subspace_group_of.contains(names_.output)) {
      return is_unchanged(plan_, slice_, like_.tensor, names_.models);
    }
    const auto [found, lacking] = count_fishers();
    if (lacking == 0 ||
        has_a_gram(plan_, slice_, names_, like_.tensor.info())) {
      return false;
    }
    return found > 0 ? plan_.recipe.slices.empty()
                     : is_unchanged(plan_, slice_, like_.tensor, names_.models);
  }

  struct FisherCount {
    size_t found = 0; // Fishers that have the tensor
    size_t lacking = 0;
  };

  FisherCount count_fishers() const {
    FisherCount count;
    const auto add = [&](std::optional<size_t> file, const std::string& name) {
      if (file) {
        ++(has(file, name) ? count.found : count.lacking);
      }
    };
    add(plan_.base_fisher, names_.base);
    for (size_t t = 0; t < slice_.models.size(); ++t) {
      add(slice_.models[t].fisher, names_.models[t]);
    }
    return count;
  }

  bool has(std::optional<size_t> file, const std::string& name) const {
    return file && plan_.named(*file).find(name) != nullptr;
  }

  // Plans a tensor without a Fisher, which is equal in all models: passthrough,
  // as the type may change.
  void plan_copy(TensorPlan& tensor) const {
    tensor.method = &find_method("passthrough");
    tensor.num_models = 1;
    tensor.sources = {like_};
    tensor.parameters.resize(plan_.outputs.size());
    for (TensorParameters& parameters : tensor.parameters) {
      parameters.weights = {1};
    }
    tensor.float64 = like_.tensor.info().dtype == DType::kF64;
    tensor.output.dtype = plan_.recipe.out_dtype.value_or(tensor.output.dtype);
    if (tensor.output.dtype == like_.tensor.info().dtype) {
      tensor.action = TensorAction::kCopy;
      tensor.reason = "equal in all models, without a Fisher";
    }
  }

  void plan_merge(TensorPlan& tensor) const {
    tensor.grams = plan_grams(plan_, slice_, names_, like_.tensor.info());
    add_parameters(tensor);
    if (tensor.has_fishers() && count_fishers().found == 0) {
      plan_average(tensor);
    }
    add_sources(tensor);
    tensor.spectral =
        tensor.method->is_spectral() && is_spectral(like_.tensor.info());
    tensor.float64 =
        plan_.recipe.float64 || !tensor.grams.empty() || tensor.spectral;
    for (const TensorSource& source : tensor.sources) {
      tensor.float64 |= source.tensor.info().dtype == DType::kF64;
      check(source, tensor.output);
    }
    tensor.output.dtype = plan_.recipe.out_dtype.value_or(tensor.output.dtype);
    if (keeps_bytes(tensor)) {
      tensor.action = TensorAction::kCopy;
      tensor.reason =
          "of " + model_name(plan_.inputs[tensor.sources[0].input]->path());
    }
  }

  static void count_bytes(TensorPlan& tensor) {
    for (const TensorSource& source : tensor.sources) {
      tensor.bytes_read += source.tensor.stored_bytes();
      if (source.update != nullptr) {
        tensor.bytes_read +=
            source.update->a.info().bytes() + source.update->b.info().bytes();
      }
    }
    for (const GramSource& gram : tensor.grams) {
      const bool counted = gram.of_task_vector &&
          (tensor.method->needs_base || &gram != tensor.grams.data());
      tensor.bytes_read += counted ? 0 : gram.matrix.tensor.info().bytes();
    }
  }

  // Adds sources at TensorPlan's positions, which depend on the Gram matrices.
  void add_sources(TensorPlan& tensor) const {
    if (tensor.method->needs_base) {
      tensor.sources.push_back(source(*plan_.base, names_.base));
    }
    if (tensor.has_base_fisher()) {
      tensor.sources.push_back(fisher(*plan_.base_fisher, names_.base, tensor));
      tensor.base_num_examples = plan_.base_num_examples;
    }
    for (size_t t = 0; t < slice_.models.size(); ++t) {
      tensor.sources.push_back(
          model_source(plan_, slice_.models[t], names_.models[t]));
      tensor.num_examples.push_back(slice_.models[t].num_examples);
    }
    if (tensor.has_fishers()) {
      for (size_t t = 0; t < slice_.models.size(); ++t) {
        tensor.sources.push_back(
            fisher(*slice_.models[t].fisher, names_.models[t], tensor));
      }
    }
  }

  TensorSource source(size_t input, const std::string& name) const {
    return {plan_.named(input).at(name), input};
  }

  // Leaves out the adapter, unless only it has the tensor.
  TensorSource first_source(const PlanModel& model, const std::string& name)
      const {
    return plan_.named(model.weights).find(name) != nullptr
        ? source(model.weights, name)
        : model_source(plan_, model, name);
  }

  TensorSource fisher(
      size_t input,
      const std::string& name,
      const TensorPlan& tensor) const {
    return {
        .tensor = plan_.named(input).at(name),
        .input = input,
        .is_fisher = true,
        .power = tensor.parameters.front().fisher_power};
  }

  void add_parameters(TensorPlan& tensor) const {
    std::vector<const Settings*> models;
    std::vector<std::optional<Estimate>> rhos;
    MeasuredScales scales{plan_.base_fisher_scale, {}};
    for (const PlanModel& model : slice_.models) {
      models.push_back(&model.recipe.parameters);
      rhos.push_back(model.rho);
      scales.models.push_back(model.fisher_scale);
    }
    const TensorPlace place = {names_.output, names_.models, names_.depth};
    for (size_t output = 0; output < plan_.outputs.size(); ++output) {
      tensor.parameters.push_back(resolve_parameters(
          *plan_.recipe.method,
          plan_.recipe.parameters,
          models,
          slice_.parameters,
          place,
          output));
      TensorParameters& parameters = tensor.parameters.back();
      if (plan_.subspace) {
        parameters.weights = formula_weights(
            *plan_.recipe.method,
            subspace_weights(plan_, names_.output, output),
            parameters.normalize != 0,
            parameters.lambda);
      }
      const auto fisher_of = [&](std::optional<size_t> t) {
        return (t ? slice_.models[*t].recipe.fisher : plan_.recipe.base_fisher)
            .value_or("");
      };
      replace_auto(parameters.rho, rhos, fisher_of);
      replace_auto_scales(parameters, scales, fisher_of);
    }
  }

  // Repeats for slices what check_tensors checks for whole models.
  static void check(const TensorSource& source, const TensorInfo& output) {
    const TensorInfo& info = source.tensor.info();
    if (info.shape != output.shape ||
        tensor_kind(info.dtype) != TensorKind::kFloat) {
      throw InputError(fmt::format(
          "{}: tensor {} is {} {}; expected a floating-point tensor of shape "
          "{} to merge into {}",
          source.tensor.file().string(),
          quote(info.name),
          dtype_name(info.dtype),
          info.shape_text(),
          output.shape_text(),
          quote(output.name)));
    }
  }

  const MergePlan& plan_;
  const PlanSlice& slice_;
  const TensorNames& names_;
  const TensorSource like_; // the base's, or the first model's
};

} // namespace

TensorPlan plan_tensor(
    const MergePlan& plan,
    const PlanSlice& slice,
    const TensorNames& names) {
  return TensorPlanner(plan, slice, names).run();
}

TensorSource model_source(
    const MergePlan& plan,
    const PlanModel& model,
    const std::string& name) {
  const std::string* changed =
      model.adapter ? model.adapter_names.find(name) : nullptr;
  if (changed == nullptr) {
    return {plan.named(model.weights).at(name), model.weights};
  }
  if (const auto whole = model.adapter->replacement(*changed)) {
    const auto file = std::ranges::find(
        plan.inputs, model.adapter->checkpoint().path(), [](const auto& input) {
          return input->path();
        });
    return {*whole, static_cast<size_t>(file - plan.inputs.begin())};
  }
  return {
      plan.named(model.weights).at(name),
      model.weights,
      /*is_fisher=*/false,
      model.adapter->find(*changed)};
}

std::vector<std::string> added_tensors(
    const MergePlan& plan,
    const PlanModel& model) {
  std::vector<std::string> added;
  if (model.adapter) {
    for (const std::string& stored : model.adapter->tensors()) {
      const std::string& name = model.adapter_names.name_of(stored);
      if (model.adapter->replacement(stored) &&
          plan.named(model.weights).find(name) == nullptr) {
        added.push_back(name);
      }
    }
    std::ranges::sort(added);
  }
  return added;
}

} // namespace merganser
