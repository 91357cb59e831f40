// merganser subspace --base DIR --base-data F --expert DIR --data F ... --out F

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "merganser/app/commands.h"
#include "merganser/app/estimate_arguments.h"
#include "merganser/app/model_option.h"
#include "merganser/app/torch_options.h"
#include "merganser/base/error.h"
#include "merganser/base/json_text.h"
#include "merganser/base/progress.h"
#include "merganser/objective/subspace_fisher.h"

namespace merganser::app {
namespace {

struct Options {
  std::vector<std::filesystem::path> experts;
  std::vector<std::filesystem::path> data; // one per expert
  std::filesystem::path out;
  SubspaceFisherOptions fisher; // without experts
};

void estimate(Options options, const CommonOptions& common) {
  if (options.data.size() != options.experts.size()) {
    throw InputError(fmt::format(
        "expected --data once per expert, got {} for {} experts",
        options.data.size(),
        options.experts.size()));
  }
  for (size_t t = 0; t < options.experts.size(); ++t) {
    options.fisher.experts.push_back({options.experts[t], options.data[t]});
  }
  check_output(options.out, "subspace Fisher", [](std::string_view estimator) {
    return estimator == kSubspaceEstimator;
  });
  SubspaceFisher found;
  {
    ProgressBar bar("subspace", "examples", common.quiet);
    found = estimate_subspace_fisher(options.fisher, bar.callback());
  }
  found.save(options.out);
  if (common.json) {
    const nlohmann::ordered_json json = {
        {"out", options.out.string()},
        {"columns", found.columns()},
        {"groups", found.groups.size()},
        {"points", found.points}};
    fmt::print("{}\n", json_text(json, 2));
  } else if (!common.quiet) {
    fmt::print(
        "{}: Fishers of the base and {} {} in {} columns\n",
        options.out.string(),
        options.fisher.experts.size(),
        options.fisher.experts.size() == 1 ? "expert" : "experts",
        found.columns());
  }
}

} // namespace

Work define_subspace(CLI::App& parser, const CommonOptions& common) {
  auto options = std::make_shared<Options>();
  SubspaceFisherOptions& o = options->fisher;
  add_model(parser, "--base", o.base.model, "Model directory of the base")
      ->required();
  parser
      .add_option(
          "--base-data",
          o.base.data,
          "Labelled data that the base was trained on: .jsonl, .csv, .tsv")
      ->required();
  add_model(
      parser,
      "--expert",
      options->experts,
      "Model directory of an expert; repeatable")
      ->required();
  parser
      .add_option(
          "--data",
          options->data,
          "Labelled training data of each expert, in the same order")
      ->required();
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
  return [options, &common] { estimate(*options, common); };
}

} // namespace merganser::app
