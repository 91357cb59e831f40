#include "merganser/experiment/removal_settings.h"

#include <fmt/format.h>

#include <algorithm>

#include "merganser/experiment/layout.h"
#include "merganser/experiment/training_settings.h"

namespace merganser {
namespace {

void parse_from(
    const YamlValue& mapping,
    const Experiment& e,
    ExperimentRemoval& removal) {
  removal.from = layout::kTarget;
  if (const auto from = mapping.find("from")) {
    removal.from = from->text();
    const auto merge =
        std::ranges::find(e.merges, removal.from, &ExperimentMerge::name);
    if (removal.from != layout::kTarget && merge == e.merges.end()) {
      from->fail(fmt::format(
          "expected target or the name of a merge, got '{}'", removal.from));
    }
  }
}

// The sets that `from` was trained on: the base's and its own.
std::vector<size_t> find_seen(
    const Experiment& e,
    const ExperimentRemoval& removal) {
  std::vector<size_t> seen =
      removal.from == layout::kTarget ? e.target->data : e.experts.data;
  seen.push_back(e.base.data[0]);
  std::ranges::sort(seen);
  seen.erase(std::ranges::unique(seen).begin(), seen.end());
  return seen;
}

void check_data(
    const YamlValue& data,
    const Experiment& e,
    const ExperimentRemoval& removal) {
  const std::string& name = e.data[removal.data].name;
  if (removal.data == e.base.data[0]) {
    data.fail(fmt::format(
        "every model starts from the base, which is trained on '{}'; choose "
        "another set",
        name));
  }
  if (!std::ranges::binary_search(removal.seen, removal.data)) {
    data.fail(fmt::format("{} is not trained on '{}'", removal.from, name));
  }
  if (removal.retrained.data.empty()) {
    data.fail(fmt::format("the target is trained on '{}' only", name));
  }
}

void parse_expert(
    const YamlValue& mapping,
    const Experiment& e,
    ExperimentRemoval& removal) {
  removal.expert = e.experts;
  removal.expert.data = {removal.data};
  if (const auto expert = mapping.find("expert")) {
    parse_training(*expert, {"proximal"}, removal.expert.options);
    if (const auto proximal = expert->find("proximal")) {
      removal.expert.proximal = proximal->number(0);
    }
  }
}

// False for a merge that would move the model towards the expert.
bool removes(const Recipe& recipe) {
  const MergeFormula formula = recipe.method->formula;
  if (formula == MergeFormula::kRemoval || formula == MergeFormula::kEwr) {
    return true;
  }
  const Setting* weight = find_setting(
      "weight", {&recipe.models[0].parameters, &recipe.parameters});
  return recipe.method->needs_base && weight != nullptr &&
      weight->is_constant() && weight->at("", 0) < 0;
}

void parse_merges(
    const YamlValue& mapping,
    const Experiment& e,
    ExperimentRemoval& removal) {
  std::set<std::string> names = e.model_names();
  for (const ExperimentData& data : e.data) {
    names.insert(data.name);
  }
  for (const std::string& name : {layout::kRetrained, layout::kRemovalExpert}) {
    if (!names.insert(name).second) {
      mapping.fail(fmt::format(
          "removal trains a model '{}'; rename the data set or merge", name));
    }
  }
  for (const YamlValue& entry : mapping.at("merges").items()) {
    removal.merges.push_back(parse_merge(
        entry, {layout::kRemovalExpert}, {removal.from, removal.model()}));
    const ExperimentMerge& merge = removal.merges.back();
    for (const char* scale : {"fisher_scale", "base_fisher_scale"}) {
      if (uses_measured_scale(merge.recipe, scale)) {
        entry.fail(fmt::format(
            "{}: removal cannot calibrate Fishers; set {} to a number",
            entry.name(),
            scale));
      }
    }
    if (merge.sweep) {
      entry.fail(fmt::format(
          "{}: removal's merges have no validation part; choose one value",
          entry.name()));
    }
    if (!removes(merge.recipe)) {
      entry.at("method").fail(fmt::format(
          "{} would not take the set out; use removal, ewr, or a method of "
          "task vectors with a negative weight",
          merge.recipe.method->name));
    }
    if (!names.insert(merge.name).second) {
      entry.at("name").fail(
          fmt::format("another model or merge has the name '{}'", merge.name));
    }
  }
}

} // namespace

std::string ExperimentRemoval::model() const {
  return from == layout::kTarget ? layout::model(from)
                                 : layout::merged_model(from);
}

ExperimentRemoval parse_removal(const YamlValue& mapping, const Experiment& e) {
  mapping.expect_keys({"data", "from", "expert", "merges"});
  if (!e.target) {
    mapping.fail(
        "removal retrains the target without the set; add the key 'target'");
  }
  ExperimentRemoval removal;
  const YamlValue data = mapping.at("data");
  removal.data = e.find_data(data);
  parse_from(mapping, e, removal);
  removal.seen = find_seen(e, removal);
  removal.retrained = *e.target;
  std::erase(removal.retrained.data, removal.data);
  check_data(data, e, removal);
  parse_expert(mapping, e, removal);
  parse_merges(mapping, e, removal);
  return removal;
}

} // namespace merganser
