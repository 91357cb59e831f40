#include "merganser/experiment/refine_settings.h"

#include <fmt/format.h>

#include "merganser/experiment/layout.h"

namespace merganser {
namespace {

// Keys with the names and defaults of `merganser refine`; the examples are by
// default those of the experts' Fishers.
RefineOptions parse_options(const YamlValue& entry, const Experiment& e) {
  RefineOptions options;
  options.objective.limit = e.fisher.limit;
  options.objective.batch_size = e.fisher.batch_size;
  if (const auto value = entry.find("solver")) {
    options.solver = value->through(parse_refine_solver);
  }
  if (const auto value = entry.find("targets")) {
    options.targets = value->through(parse_refine_targets);
  }
  if (const auto value = entry.find("groups")) {
    options.groups = value->through(parse_grouping);
  }
  if (const auto value = entry.find("steps")) {
    options.steps = value->integer(1, kMaxCount);
  }
  if (const auto value = entry.find("lr")) {
    options.learning_rate = value->positive();
  }
  if (const auto value = entry.find("held_out")) {
    options.held_out = value->positive(0.99);
  }
  if (const auto value = entry.find("refresh")) {
    options.refresh = value->boolean();
  }
  if (const auto value = entry.find("limit")) {
    options.objective.limit = value->integer(1);
  }
  if (const auto value = entry.find("batch_size")) {
    options.objective.batch_size = value->integer(1, kMaxCount);
  }
  return options;
}

bool parse_base(const YamlValue& base) {
  const std::string text = base.text();
  if (text != "data" && text != "fisher") {
    base.fail(fmt::format("expected data or fisher, got '{}'", text));
  }
  return text == "data";
}

} // namespace

std::vector<ExperimentRefinement> parse_refinements(
    const YamlValue& list,
    const Experiment& e) {
  const std::set<std::string> models = e.model_names();
  std::set<std::string> names = models;
  std::vector<ExperimentRefinement> refinements;
  for (const YamlValue& entry : list.items()) {
    entry.expect_keys(
        {"name",
         "from",
         "base",
         "solver",
         "targets",
         "groups",
         "steps",
         "lr",
         "held_out",
         "refresh",
         "limit",
         "batch_size"});
    const YamlValue name = entry.at("name");
    layout::check_name(name, name.text());
    if (!names.insert(name.text()).second) {
      name.fail(
          fmt::format("another model or merge has the name '{}'", name.text()));
    }
    const YamlValue from = entry.at("from");
    if (!models.contains(from.text()) ||
        (from.text() == layout::kTarget && !e.target)) {
      from.fail(fmt::format("unknown model '{}'", from.text()));
    }
    refinements.push_back(
        {.name = name.text(),
         .from = e.model_path(from.text()),
         .options = parse_options(entry, e)});
    if (const auto base = entry.find("base")) {
      refinements.back().base_data = parse_base(*base);
    }
  }
  return refinements;
}

} // namespace merganser
