// merganser fisher --model DIR --data F --out FILE

#include "merganser/fisher/fisher.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "merganser/app/commands.h"
#include "merganser/app/estimate_output.h"
#include "merganser/app/torch_options.h"
#include "merganser/base/error.h"
#include "merganser/base/json_text.h"
#include "merganser/base/progress.h"
#include "merganser/io/checkpoint.h"
#include "merganser/io/fisher_file.h"
#include "merganser/io/subspace_file.h"
#include "merganser/model/classifier.h"
#include "merganser/objective/task_vector_statistics.h"

namespace merganser::app {
namespace {

struct Options {
  std::filesystem::path model;
  std::filesystem::path data;
  std::filesystem::path out;
  std::optional<std::filesystem::path> base;
  std::optional<std::filesystem::path> base_data;
  int64_t max_length = 128;
  FisherOptions fisher;
};

TaskVectorStatistics measure_along(
    const Options& options,
    const CommonOptions& common) {
  ProgressBar bar("task vector", "examples", common.quiet);
  return measure_task_vector(
      {.base = *options.base,
       .base_data = *options.base_data,
       .expert = options.model,
       .data = options.data,
       .limit = options.fisher.limit,
       .seed = options.fisher.seed,
       .batch_size = options.fisher.batch_size,
       .max_length = options.max_length,
       .bfloat16 = options.fisher.bfloat16},
      bar.callback());
}

void fisher(const Options& options, const CommonOptions& common) {
  if (options.base.has_value() != options.base_data.has_value()) {
    throw InputError("expected --base and --base-data together, got one");
  }
  check_output(options.out, "Fisher file", [&] {
    const Metadata metadata = SafetensorsFile(options.out).metadata();
    const auto estimator = metadata.find("estimator");
    return metadata.contains("format_version") && estimator != metadata.end() &&
        estimator->second != kSubspaceEstimator;
  });
  Classifier classifier(options.model);
  const Dataset data = classifier.load(options.data, options.max_length);
  // First, since it checks the base and its data.
  std::optional<TaskVectorStatistics> task_vector;
  if (options.base) {
    task_vector = measure_along(options, common);
  }
  FisherResult result;
  {
    ProgressBar bar("fisher", "examples", common.quiet);
    result = estimate_fisher(
        classifier.encoder,
        data,
        classifier.tokenizer->pad_id(),
        options.fisher,
        bar.callback());
  }
  result.model_hash = Checkpoint(options.model).content_hash();
  result.task_vector = task_vector;
  result.save(options.out);
  if (common.json) {
    const nlohmann::ordered_json json = {
        {"out", options.out.string()},
        {"estimator", result.estimator},
        {"num_examples", result.num_examples},
        {"num_examples_used", result.num_examples_used}};
    fmt::print("{}\n", json_text(json, 2));
  } else if (!common.quiet) {
    fmt::print(
        "{}: {} Fisher of {} on {} of {} examples\n",
        options.out.string(),
        result.estimator,
        options.model.string(),
        result.num_examples_used,
        result.num_examples);
  }
}

} // namespace

Work define_fisher(CLI::App& parser, const CommonOptions& common) {
  auto options = std::make_shared<Options>();
  parser.add_option("--model", options->model, "Model directory")->required();
  parser
      .add_option("--data", options->data, "Labelled data: .jsonl, .csv, .tsv")
      ->required();
  parser.add_option("--out", options->out, "File to write (.safetensors)")
      ->required();
  parser.add_option(
      "--base",
      options->base,
      "Model directory that the model was fine-tuned from: also measures the "
      "model's gradient along its task vector, for measured_gradient_matching");
  parser.add_option(
      "--base-data",
      options->base_data,
      "Labelled data that the base was trained on, with --base");
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
  parser.add_option("--limit", o.limit, "Number of examples to use; -1: all")
      ->capture_default_str();
  add_seed(parser, o.seed, "Random seed for the subset and the labels");
  add_batch_size(parser, o.batch_size);
  add_max_length(parser, options->max_length);
  add_dtype(parser, o.bfloat16);
  return [options, &common] { fisher(*options, common); };
}

} // namespace merganser::app
