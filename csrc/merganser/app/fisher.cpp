// merganser fisher --model DIR --data F --out FILE

#include "merganser/fisher/fisher.h"

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
#include "merganser/objective/fisher_on_way.h"
#include "merganser/objective/task_vector_statistics.h"

namespace merganser::app {
namespace {

struct Options {
  EstimateArguments files;
  std::optional<std::filesystem::path> base;
  std::optional<std::filesystem::path> base_data;
  std::optional<std::filesystem::path> at;
  std::optional<int64_t> along;
  FisherOptions fisher;
};

TaskVectorStatistics measure_along(
    const Options& options,
    const CommonOptions& common) {
  ProgressBar bar("task vector", "examples", common.quiet);
  return measure_task_vector(
      {.base = *options.base,
       .base_data = *options.base_data,
       .expert = options.files.model,
       .data = options.files.data,
       .limit = options.fisher.limit,
       .seed = options.fisher.seed,
       .batch_size = options.fisher.batch_size,
       .max_length = options.files.max_length,
       .bfloat16 = options.fisher.bfloat16},
      bar.callback());
}

FisherResult estimate(const Options& options, const CommonOptions& common) {
  const EstimateArguments& files = options.files;
  if (!options.at) {
    return estimate_on_data(
        files, "fisher", common, estimate_fisher, options.fisher);
  }
  const FisherWay way{files.model, *options.at, options.along.value_or(0)};
  const auto on_way = [&way](Encoder& model, const auto&... arguments) {
    return estimate_fisher_on_way(model, way, arguments...);
  };
  return estimate_on_data(files, "fisher", common, on_way, options.fisher);
}

void fisher(const Options& options, const CommonOptions& common) {
  const EstimateArguments& files = options.files;
  if (options.base.has_value() != options.base_data.has_value()) {
    throw InputError("expected --base and --base-data together, got one");
  }
  if (options.along && !options.at) {
    throw InputError("--along requires --at, the model at its end");
  }
  if (options.along && *options.along < 1) {
    throw InputError(
        fmt::format("--along must be at least 1, got {}", *options.along));
  }
  check_fisher_output(files.out);
  // First, since it checks the base and its data.
  std::optional<TaskVectorStatistics> task_vector;
  if (options.base) {
    task_vector = measure_along(options, common);
  }
  FisherResult result = estimate(options, common);
  result.task_vector = task_vector;
  result.save(files.out);
  if (common.json) {
    const nlohmann::ordered_json json = {
        {"out", files.out.string()},
        {"estimator", result.estimator},
        {"num_examples", result.num_examples},
        {"num_examples_used", result.num_examples_used}};
    fmt::print("{}\n", json_text(json, 2));
  } else if (!common.quiet) {
    fmt::print(
        "{}: {} Fisher of {} on {} of {} examples\n",
        files.out.string(),
        result.estimator,
        files.model.string(),
        result.num_examples_used,
        result.num_examples);
  }
}

} // namespace

Work define_fisher(CLI::App& parser, const CommonOptions& common) {
  auto options = std::make_shared<Options>();
  add_estimate_arguments(parser, options->files);
  add_model(
      parser,
      "--base",
      options->base,
      "Model directory that the model was fine-tuned from: also measures the "
      "model's gradient along its task vector, for measured_gradient_matching");
  parser.add_option(
      "--base-data",
      options->base_data,
      "Labelled data that the base was trained on, with --base");
  add_model(
      parser,
      "--at",
      options->at,
      "Model directory, such as a merge: estimates the Fisher at its weights, "
      "for merging --model");
  parser.add_option(
      "--along",
      options->along,
      "With --at: averages over N points along the path from --model to --at, "
      "the midpoints of N equal segments");
  FisherOptions& o = options->fisher;
  parser
      .add_option_function<std::string>(
          "--estimator",
          [&o](const std::string& name) {
            o.estimator = parse_estimator(name);
          },
          "Estimator: " + estimator_names())
      ->default_str(estimator_name(o.estimator));
  parser
      .add_option(
          "--samples", o.samples, "mc, mc_batch: labels sampled per example")
      ->capture_default_str();
  add_limit(parser, o.limit, "Number of examples to use; -1: all");
  add_seed(parser, o.seed, "Random seed for the subset and the labels");
  add_batch_size(parser, o.batch_size);
  add_max_length(parser, options->files.max_length);
  add_dtype(parser, o.bfloat16);
  add_storage(parser, "--storage", o.storage);
  parser.footer(
      "Without data:\n"
      "  --from-checkpoint DIR  the Fisher in an optimizer's state\n"
      "  --import FILE          a Fisher that another program wrote\n"
      "merganser fisher --from-checkpoint --help lists their options.");
  return [options, &common] { fisher(*options, common); };
}

} // namespace merganser::app
