// merganser posterior --base DIR --base-fisher F --expert DIR --fisher F ...
//   --out DIR

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "merganser/app/commands.h"
#include "merganser/app/model_option.h"
#include "merganser/app/per_expert.h"
#include "merganser/base/json_text.h"
#include "merganser/base/progress.h"
#include "merganser/fisher/posterior.h"
#include "merganser/io/atomic_file.h"
#include "merganser/io/model_dir.h"

namespace merganser::app {
namespace {

namespace fs = std::filesystem;

struct Options {
  fs::path base;
  fs::path base_fisher;
  std::vector<fs::path> experts;
  std::vector<fs::path> fishers; // one per expert
  std::vector<double> weights; // one per expert, one for all, or none: 1
  std::optional<double> delta;
  fs::path out;
};

Posterior product_of(
    const Options& options,
    const std::vector<double>& weights,
    ProgressBar& bar) {
  const auto total = std::ssize(options.experts) + 1;
  const Posterior base = Posterior::laplace(options.base, options.base_fisher);
  std::vector<Posterior> posteriors;
  for (size_t t = 0; t < options.experts.size(); ++t) {
    bar.update(std::ssize(posteriors) + 1, total);
    posteriors.push_back(Posterior::laplace(
        options.experts[t], options.fishers[t], options.base_fisher));
  }
  const Posterior product = Posterior::product(posteriors, base, weights);
  bar.update(total, total);
  return options.delta ? product.with_prior(*options.delta) : product;
}

void posterior(const Options& options, const CommonOptions& common) {
  const size_t experts = options.experts.size();
  check_per_expert(
      options.fishers.size(), "--fisher", "once per expert", experts);
  const std::vector<double> weights =
      weights_per_expert(options.weights, experts);
  AtomicDirectory out(options.out, /*replace=*/false);
  int64_t parameters = 0;
  int64_t zeros = 0;
  {
    ProgressBar bar("posterior", "models", common.quiet);
    const Posterior product = product_of(options, weights, bar);
    for (const auto& [name, values] : product.precision()) {
      parameters += values.numel();
    }
    zeros = product.zeros();
    product.save(out.path());
    ModelDir(options.base).copy_without_weights(out.path());
  }
  out.commit();
  if (common.json) {
    const nlohmann::ordered_json json = {
        {"out", options.out.string()},
        {"parameters", parameters},
        {"zero_precision", zeros},
        {"weights", weights}};
    fmt::print("{}\n", json_text(json, 2));
  } else if (!common.quiet) {
    fmt::print(
        "{}: product of {} posteriors over {} parameters, {} with precision "
        "0\n",
        options.out.string(),
        experts,
        parameters,
        zeros);
  }
}

} // namespace

Work define_posterior(CLI::App& parser, const CommonOptions& common) {
  auto options = std::make_shared<Options>();
  Options& o = *options;
  add_model(parser, "--base", o.base, "Model directory of the base")
      ->required();
  parser.add_option("--base-fisher", o.base_fisher, "Fisher of the base")
      ->required();
  add_model(
      parser, "--expert", o.experts, "Model directory of an expert; repeatable")
      ->required();
  parser
      .add_option(
          "--fisher", o.fishers, "Fisher of each expert, in the same order")
      ->required();
  parser.add_option(
      "--weight",
      o.weights,
      "Weight of each expert, or one for all; default 1");
  parser.add_option(
      "--delta", o.delta, "Precision added to all parameters; keeps the mean");
  parser.add_option("--out", o.out, "Directory to write")->required();
  return [options, &common] { posterior(*options, common); };
}

} // namespace merganser::app
