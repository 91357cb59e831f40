#include "merganser/experiment/settings.h"

#include <fmt/format.h>

#include <set>

#include "merganser/experiment/layout.h"
#include "merganser/experiment/removal_settings.h"
#include "merganser/experiment/training_settings.h"
#include "merganser/io/atomic_file.h"
#include "merganser/io/model_dir.h"
#include "merganser/io/yaml_value.h"
#include "merganser/model/compute_dtype.h"

namespace merganser {
namespace {

namespace fs = std::filesystem;

fs::path parse_file(const YamlValue& value, const fs::path& folder) {
  const fs::path path = value.path(folder);
  if (!fs::is_regular_file(path)) {
    value.fail(fmt::format("file not found: {}", path.string()));
  }
  return path;
}

std::vector<ExperimentData> parse_data(
    const YamlValue& mapping,
    const fs::path& folder) {
  std::vector<ExperimentData> data;
  for (const auto& [name, value] : mapping.entries()) {
    layout::check_name(value, name);
    if (name == layout::kBase || name == layout::kTarget) {
      value.fail(fmt::format(
          "'{}' is the name of a model; choose another for the data set",
          name));
    }
    value.expect_keys({"train", "test"});
    data.push_back(
        {name,
         parse_file(value.at("train"), folder),
         parse_file(value.at("test"), folder)});
  }
  return data;
}

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

  if (const auto target = root.find("target")) {
    experiment.target = parse_from_base(*target);
    if (const auto data = target->find("data")) {
      experiment.target->data = find_all_data(*data, experiment);
    } else {
      for (size_t i = 0; i < experiment.data.size(); ++i) {
        experiment.target->data.push_back(i);
      }
    }
  }
}

FisherOptions parse_fisher(const YamlValue& mapping, uint64_t seed) {
  mapping.expect_keys({"estimator", "samples", "limit", "batch_size", "dtype"});
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
        {layout::model(layout::kBase), layout::fisher(layout::kBase)}));
    const std::string& name = experiment.merges.back().name;
    if (!names.insert(name).second) {
      entry.at("name").fail(
          fmt::format("another model or merge has the name '{}'", name));
    }
  }
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
  for (const ExperimentMerge& merge : merges) {
    names.insert(merge.name);
  }
  return names;
}

Experiment Experiment::load(const fs::path& path) {
  Experiment experiment;
  experiment.text = read_file(path);
  const YamlValue root = YamlValue::parse(experiment.text, path.string());
  const fs::path folder = path.parent_path();
  root.expect_keys(
      {"encoder",
       "num_labels",
       "max_length",
       "seed",
       "dtype",
       "data",
       "training",
       "base",
       "experts",
       "target",
       "fisher",
       "merges",
       "mismatch",
       "removal",
       "evaluation",
       "output"});
  const YamlValue encoder = root.at("encoder");
  experiment.encoder = encoder.path(folder);
  encoder.through([&](const std::string&) { ModelDir(experiment.encoder); });

  TrainOptions defaults;
  defaults.num_labels = 2;
  if (const auto value = root.find("num_labels")) {
    defaults.num_labels = value->integer(2);
  }
  if (const auto value = root.find("max_length")) {
    experiment.max_length = value->integer(2);
  }
  if (const auto value = root.find("seed")) {
    defaults.seed = value->integer(0);
  }
  if (const auto value = root.find("dtype")) {
    experiment.bfloat16 = value->through(parse_bfloat16);
  }
  defaults.max_length = experiment.max_length;
  defaults.bfloat16 = experiment.bfloat16;
  if (const auto training = root.find("training")) {
    parse_training(*training, {}, defaults);
  }
  experiment.data = parse_data(root.at("data"), folder);
  parse_models(root, defaults, experiment);
  experiment.fisher.seed = defaults.seed;
  if (const auto fisher = root.find("fisher")) {
    experiment.fisher = parse_fisher(*fisher, defaults.seed);
  }
  if (const auto evaluation = root.find("evaluation")) {
    evaluation->expect_keys({"batch_size"});
    if (const auto value = evaluation->find("batch_size")) {
      experiment.eval_batch_size = value->integer(1);
    }
  }
  if (const auto mismatch = root.find("mismatch")) {
    experiment.mismatch = mismatch->boolean();
  }
  parse_merges(root, experiment);
  parse_output(root.at("output"), experiment);
  if (const auto removal = root.find("removal")) {
    experiment.removal = parse_removal(*removal, experiment);
  }
  return experiment;
}

} // namespace merganser
