#include "merganser/experiment/settings.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "merganser/experiment/layout.h"
#include "merganser/experiment/refine_settings.h"
#include "merganser/experiment/removal_settings.h"
#include "merganser/experiment/training_settings.h"
#include "merganser/io/atomic_file.h"
#include "merganser/io/model_dir.h"
#include "merganser/io/yaml_value.h"
#include "merganser/model/compute_dtype.h"
#include "merganser/recipe/read_options.h"

namespace merganser {
namespace {

namespace fs = std::filesystem;

std::vector<size_t> find_all_data(
    const YamlValue& list,
    const Experiment& experiment) {
  std::vector<size_t> found;
  std::set<size_t> seen;
  for (const YamlValue& item : list.items()) {
    found.push_back(experiment.find_data(item));
    if (!seen.insert(found.back()).second) {
      item.fail(fmt::format("'{}' is given twice", item.text()));
    }
  }
  return found;
}

// Parses base, experts and target.
void parse_models(
    const YamlValue& root,
    const TrainOptions& defaults,
    Experiment& experiment) {
  const YamlValue base = root.at("base");
  experiment.base.options = defaults;
  parse_training(base, {"data"}, experiment.base.options);
  experiment.base.data = {experiment.find_data(base.at("data"))};

  const auto parse_from_base = [&](const YamlValue& mapping) {
    ExperimentTraining training{.data = {}, .options = defaults};
    parse_training(mapping, {"data", "proximal"}, training.options);
    if (const auto proximal = mapping.find("proximal")) {
      training.proximal = proximal->number(0);
    }
    return training;
  };
  const YamlValue experts = root.at("experts");
  experiment.experts = parse_from_base(experts);
  experiment.experts.data = find_all_data(experts.at("data"), experiment);

  const auto parse_target = [&](const YamlValue& mapping) {
    ExperimentTraining target = parse_from_base(mapping);
    if (const auto data = mapping.find("data")) {
      target.data = find_all_data(*data, experiment);
    } else {
      target.data.resize(experiment.data.size());
      std::iota(target.data.begin(), target.data.end(), size_t{0});
    }
    return target;
  };
  if (const auto target = root.given("target")) {
    experiment.target = parse_target(*target);
  }
  if (const auto targets = root.given("targets")) {
    for (const auto& [name, mapping] : targets->entries()) {
      layout::check_name(mapping, name);
      if (experiment.model_names().contains(name)) {
        mapping.fail(fmt::format("another model has the name '{}'", name));
      }
      experiment.targets.push_back({name, parse_target(mapping)});
    }
  }
}

FisherOptions parse_fisher(const YamlValue& mapping, uint64_t seed) {
  mapping.expect_keys(
      {"estimator", "samples", "limit", "batch_size", "dtype", "storage"});
  FisherOptions options;
  options.seed = seed;
  if (const auto value = mapping.find("estimator")) {
    options.estimator = value->through(parse_estimator);
  }
  if (const auto value = mapping.find("samples")) {
    options.samples = value->integer(1, 1'000'000);
  }
  if (const auto value = mapping.find("limit")) {
    options.limit = value->integer(1);
  }
  if (const auto value = mapping.find("batch_size")) {
    options.batch_size = value->integer(1);
  }
  if (const auto value = mapping.find("dtype")) {
    options.bfloat16 = value->through(parse_bfloat16);
  }
  if (const auto value = mapping.find("storage")) {
    options.storage = value->through(parse_storage);
  }
  return options;
}

void parse_merges(const YamlValue& root, Experiment& experiment) {
  std::vector<std::string> experts;
  for (const size_t data : experiment.experts.data) {
    experts.push_back(experiment.data[data].name);
  }
  std::set<std::string> names = experiment.model_names();
  for (const YamlValue& entry : root.at("merges").items()) {
    experiment.merges.push_back(parse_merge(
        entry,
        experts,
        {layout::kBase, layout::model(layout::kBase)},
        experiment.merges));
    const std::string& name = experiment.merges.back().name;
    if (experiment.merges.back().sweep && experiment.validation == 0) {
      entry.fail(fmt::format(
          "{}: a sweep chooses its value on the validation parts; add the key "
          "'validation'",
          entry.name()));
    }
    if (!names.insert(name).second) {
      entry.at("name").fail(
          fmt::format("another model or merge has the name '{}'", name));
    }
  }
}

// Statistics of task vectors have standard errors, which one example lacks.
void check_number_of_examples(
    const YamlValue& root,
    const Experiment& experiment) {
  if (experiment.fisher.limit != 1) {
    return;
  }
  for (const ExperimentMerge& merge : experiment.merges) {
    if (uses_rho(merge.recipe) || merge.recipe.uses_subspace()) {
      root.at("fisher").at("limit").fail(fmt::format(
          "merge '{}' needs at least 2 examples, got 1", merge.name));
    }
  }
}

std::set<int64_t> parse_seeds(const YamlValue& list) {
  std::set<int64_t> seeds;
  for (const YamlValue& item : list.items()) {
    if (!seeds.insert(item.integer(0)).second) {
      item.fail(fmt::format("seed {} is given twice", item.text()));
    }
  }
  return seeds;
}

void parse_output(const YamlValue& output, Experiment& experiment) {
  experiment.output = output.text();
  for (const ExperimentMerge& merge : experiment.merges) {
    if (merge.name == experiment.output) {
      return;
    }
  }
  output.fail(fmt::format("unknown merge '{}'", experiment.output));
}

// true, false or {limit: N}
void parse_mismatch(const YamlValue& value, Experiment& experiment) {
  experiment.mismatch = value.is_mapping() || value.boolean();
  if (value.is_mapping()) {
    value.expect_keys({"limit"});
    experiment.mismatch_limit = value.at("limit").integer(1);
  }
}

} // namespace

size_t Experiment::find_data(const YamlValue& name) const {
  const std::string text = name.text();
  for (size_t i = 0; i < data.size(); ++i) {
    if (data[i].name == text) {
      return i;
    }
  }
  name.fail(fmt::format("unknown data set '{}'", text));
}

std::set<std::string> Experiment::model_names() const {
  std::set<std::string> names = {layout::kBase, layout::kTarget};
  for (const size_t i : experts.data) {
    names.insert(data[i].name);
  }
  for (const ExperimentTarget& another : targets) {
    names.insert(another.name);
  }
  for (const ExperimentMerge& merge : merges) {
    names.insert(merge.name);
  }
  for (const ExperimentRefinement& refinement : refinements) {
    names.insert(refinement.name);
  }
  return names;
}

std::string Experiment::model_path(const std::string& name) const {
  const auto is_named = [&](const auto& one) { return one.name == name; };
  if (std::ranges::any_of(merges, is_named)) {
    return layout::merged_model(name);
  }
  return std::ranges::any_of(refinements, is_named) ? layout::refinement(name)
                                                    : layout::model(name);
}

Experiment Experiment::load(
    const fs::path& path,
    const std::vector<std::string>& assignments) {
  Experiment experiment;
  experiment.text = read_file(path);
  YamlValue root = YamlValue::parse(experiment.text, path.string());
  if (!assignments.empty()) {
    for (const std::string& assignment : assignments) {
      root = root.with(assignment);
    }
    experiment.text = root.to_yaml();
  }
  const fs::path folder = path.parent_path();
  root.expect_keys({"encoder",  "num_labels", "max_length", "seed",
                    "seeds",    "dtype",      "data",       "validation",
                    "training", "base",       "experts",    "target",
                    "targets",  "fisher",     "merges",     "mismatch",
                    "refine",   "removal",    "evaluation", "output"});
  const YamlValue encoder = root.at("encoder");
  experiment.encoder = parse_model_directory(encoder, folder);
  encoder.through([&](const std::string&) { ModelDir(experiment.encoder); });

  TrainOptions defaults;
  defaults.num_labels = 2;
  if (const auto value = root.find("num_labels")) {
    defaults.num_labels = value->integer(2);
  }
  if (const auto value = root.find("max_length")) {
    experiment.max_length = value->integer(2);
  }
  if (const auto value = root.given("seed")) {
    defaults.seed = value->integer(0);
  }
  experiment.seed = defaults.seed;
  if (const auto value = root.find("dtype")) {
    experiment.bfloat16 = value->through(parse_bfloat16);
  }
  defaults.max_length = experiment.max_length;
  defaults.bfloat16 = experiment.bfloat16;
  if (const auto training = root.find("training")) {
    parse_training(*training, {}, defaults);
  }
  experiment.data = parse_data(root.at("data"), folder);
  if (const auto validation = root.find("validation")) {
    experiment.validation = parse_validation(*validation);
  }
  parse_models(root, defaults, experiment);
  experiment.fisher.seed = defaults.seed;
  if (const auto fisher = root.find("fisher")) {
    experiment.fisher = parse_fisher(*fisher, defaults.seed);
  }
  if (const auto evaluation = root.find("evaluation")) {
    evaluation->expect_keys({"batch_size", "limit"});
    if (const auto value = evaluation->find("batch_size")) {
      experiment.eval_batch_size = value->integer(1);
    }
    if (const auto value = evaluation->given("limit")) {
      for (ExperimentData& data : experiment.data) {
        data.limit_test =
            data.limit_test < 0 ? value->integer(1) : data.limit_test;
      }
    }
  }
  if (const auto mismatch = root.find("mismatch")) {
    parse_mismatch(*mismatch, experiment);
  }
  parse_merges(root, experiment);
  check_number_of_examples(root, experiment);
  parse_output(root.at("output"), experiment);
  if (const auto refine = root.given("refine")) {
    experiment.refinements = parse_refinements(*refine, experiment);
  }
  if (const auto removal = root.given("removal")) {
    experiment.removal = parse_removal(*removal, experiment);
  }
  if (const auto seeds = root.given("seeds")) {
    if (root.given("seed")) {
      seeds->fail(
          "seed and seeds are mutually exclusive; remove one or set it to "
          "null");
    }
    for (const int64_t seed : parse_seeds(*seeds)) {
      std::vector<std::string> with_seed = assignments;
      with_seed.push_back(fmt::format("seed={}", seed));
      with_seed.push_back("seeds=null");
      experiment.seeds.push_back(load(path, with_seed));
    }
  }
  return experiment;
}

} // namespace merganser
