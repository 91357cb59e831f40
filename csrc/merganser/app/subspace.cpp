// merganser subspace --base DIR --base-data F --expert DIR --data F ... --out F
// or with diagonal Fishers, --base-fisher F and --fisher F, in place of data

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "merganser/app/commands.h"
#include "merganser/app/estimate_arguments.h"
#include "merganser/app/model_option.h"
#include "merganser/app/per_expert.h"
#include "merganser/app/torch_options.h"
#include "merganser/base/error.h"
#include "merganser/base/json_text.h"
#include "merganser/base/progress.h"
#include "merganser/objective/subspace_fisher.h"
#include "merganser/objective/subspace_of_fishers.h"

namespace merganser::app {
namespace {

struct Options {
  std::filesystem::path base;
  std::optional<std::filesystem::path> base_data;
  std::optional<std::filesystem::path> base_fisher; // in place of data
  std::vector<std::filesystem::path> experts;
  std::vector<std::filesystem::path> data; // one per expert, or
  std::vector<std::filesystem::path> fishers; // one per expert
  std::filesystem::path out;
  SubspaceFisherOptions estimate; // without base and experts
  std::vector<const CLI::Option*> of_data; // that only estimates from data have
};

// True for Fishers in place of data.
bool takes_fishers(const Options& options) {
  const bool data = options.base_data || !options.data.empty();
  const bool fishers = options.base_fisher || !options.fishers.empty();
  const bool both = fishers ? options.base_fisher && !options.fishers.empty()
                            : options.base_data && !options.data.empty();
  if ((data && fishers) || !both) {
    throw InputError(
        "expected --base-data and --data, or in their place --base-fisher and "
        "--fisher, for the base and every expert");
  }
  for (const CLI::Option* option : options.of_data) {
    if (fishers && option->count() > 0) {
      throw InputError(fmt::format(
          "{} applies to --data, not to --fisher", option->get_name()));
    }
  }
  return fishers;
}

// One file per expert, with `option`.
template <typename Model>
std::vector<Model> pair_experts(
    const Options& options,
    const std::vector<std::filesystem::path>& files,
    const char* option) {
  check_per_expert(
      files.size(), option, "once per expert", options.experts.size());
  std::vector<Model> models;
  for (size_t t = 0; t < files.size(); ++t) {
    models.push_back({options.experts[t], files[t]});
  }
  return models;
}

SubspaceFisher estimate(Options& options, const CommonOptions& common) {
  SubspaceFisherOptions& o = options.estimate;
  o.base = {options.base, *options.base_data};
  o.experts = pair_experts<SubspaceFisherOptions::Model>(
      options, options.data, "--data");
  ProgressBar bar("subspace", "examples", common.quiet);
  return estimate_subspace_fisher(o, bar.callback());
}

SubspaceOfFishers project(const Options& options, const CommonOptions& common) {
  const SubspaceOfFishersOptions o{
      .base = {options.base, *options.base_fisher},
      .experts = pair_experts<SubspaceOfFishersOptions::Model>(
          options, options.fishers, "--fisher"),
      .directions = options.estimate.directions,
      .groups = options.estimate.groups};
  ProgressBar bar("subspace", "models", common.quiet);
  return subspace_of_fishers(o, bar.callback());
}

// The factors of the Fishers, those of the base first.
std::vector<double> scales_of(const SubspaceOfFishers& found) {
  std::vector<double> scales;
  const auto add = [&](const std::optional<Estimate>& scale) {
    scales.push_back(scale ? scale->value : 1);
  };
  add(found.base_scale);
  std::ranges::for_each(found.scales, add);
  return scales;
}

void subspace(Options& options, const CommonOptions& common) {
  const bool from_fishers = takes_fishers(options);
  check_output(options.out, "subspace Fisher", [](std::string_view estimator) {
    return estimator == kSubspaceEstimator;
  });
  SubspaceFisher found;
  std::vector<double> scales; // none from data
  if (from_fishers) {
    SubspaceOfFishers projected = project(options, common);
    scales = scales_of(projected);
    found = std::move(projected.fisher);
  } else {
    found = estimate(options, common);
  }
  found.save(options.out);
  if (common.json) {
    nlohmann::ordered_json json = {
        {"out", options.out.string()},
        {"columns", found.columns()},
        {"groups", found.groups.size()},
        {"points", found.points}};
    if (from_fishers) {
      json["scales"] = scales;
    }
    fmt::print("{}\n", json_text(json, 2));
  } else if (!common.quiet) {
    fmt::print(
        "{}: Fishers of the base and {} {} in {} columns{}\n",
        options.out.string(),
        options.experts.size(),
        options.experts.size() == 1 ? "expert" : "experts",
        found.columns(),
        from_fishers ? fmt::format(
                           ", from diagonals with scales {:.4g}",
                           fmt::join(scales, ", "))
                     : "");
  }
}

} // namespace

Work define_subspace(CLI::App& parser, const CommonOptions& common) {
  auto options = std::make_shared<Options>();
  SubspaceFisherOptions& o = options->estimate;
  add_model(parser, "--base", options->base, "Model directory of the base")
      ->required();
  parser.add_option(
      "--base-data",
      options->base_data,
      "Labelled data that the base was trained on: .jsonl, .csv, .tsv");
  add_model(
      parser,
      "--expert",
      options->experts,
      "Model directory of an expert; repeatable")
      ->required();
  parser.add_option(
      "--data",
      options->data,
      "Labelled training data of each expert, in the same order");
  parser.add_option(
      "--base-fisher",
      options->base_fisher,
      "In place of data: diagonal Fisher of the base");
  parser.add_option(
      "--fisher",
      options->fishers,
      "In place of data: diagonal Fisher of each expert, in the same order");
  add_model(
      parser,
      "--direction",
      o.directions,
      "Model directory, such as another merge, whose displacement from the "
      "base is added to the span; repeatable");
  parser.add_option("--out", options->out, "File to write (.safetensors)")
      ->required();
  parser
      .add_option_function<std::string>(
          "--groups",
          [&o](const std::string& name) { o.groups = parse_grouping(name); },
          "Parts of the task vectors: global, block (attention and MLP of each "
          "layer, embeddings, head) or tensor")
      ->default_str(grouping_name(o.groups));
  parser
      .add_option(
          "--points",
          o.points,
          "Points along the path from each model to the experts' average, over "
          "which its Fisher is averaged; 1: at the model alone")
      ->capture_default_str();
  parser
      .add_option(
          "--limit", o.limit, "Number of examples per model to use; -1: all")
      ->capture_default_str();
  add_seed(parser, o.seed, "Random seed for the examples");
  add_batch_size(parser, o.batch_size);
  add_max_length(parser, o.max_length);
  add_dtype(parser, o.bfloat16);
  for (const char* name :
       {"--points",
        "--limit",
        "--seed",
        "--batch-size",
        "--max-length",
        "--dtype"}) {
    options->of_data.push_back(parser.get_option(name));
  }
  return [options, &common] { subspace(*options, common); };
}

} // namespace merganser::app
