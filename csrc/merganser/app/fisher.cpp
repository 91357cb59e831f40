// merganser fisher --model DIR --data F --out FILE

#include "merganser/fisher/fisher.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "merganser/app/commands.h"
#include "merganser/app/estimate_arguments.h"
#include "merganser/app/torch_options.h"
#include "merganser/base/json_text.h"

namespace merganser::app {
namespace {

struct Options {
  EstimateArguments files;
  FisherOptions fisher;
};

void fisher(const Options& options, const CommonOptions& common) {
  const EstimateArguments& files = options.files;
  const FisherResult result = estimate_to_file(
      files,
      OutKind::kFisher,
      common,
      [&](Classifier& classifier,
          const Dataset& data,
          const ProgressCallback& progress) {
        return estimate_fisher(
            classifier.encoder,
            data,
            classifier.tokenizer->pad_id(),
            options.fisher,
            progress);
      });
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
  FisherOptions& o = options->fisher;
  parser
      .add_option_function<std::string>(
          "--estimator",
          [&o](const std::string& name) {
            o.estimator = parse_estimator(name);
          },
          "Estimator: exact, mc, empirical or mc_batch")
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
  return [options, &common] { fisher(*options, common); };
}

} // namespace merganser::app
