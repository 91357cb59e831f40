// merganser calibrate --fisher F --model DIR --merge DIR --data F --out F

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "merganser/app/commands.h"
#include "merganser/app/estimate_arguments.h"
#include "merganser/app/model_option.h"
#include "merganser/app/torch_options.h"
#include "merganser/base/json_text.h"
#include "merganser/base/progress.h"
#include "merganser/io/fisher_file.h"
#include "merganser/objective/fisher_scale.h"

namespace merganser::app {
namespace {

struct Options {
  std::filesystem::path out;
  FisherScaleOptions scale;
};

void calibrate(const Options& options, const CommonOptions& common) {
  check_fisher_output(options.out);
  FisherScale found;
  {
    ProgressBar bar("calibrate", "examples", common.quiet);
    found = measure_fisher_scale(options.scale, bar.callback());
  }
  copy_with_scale(options.scale.fisher, options.out, found);
  if (common.json) {
    const nlohmann::ordered_json json = {
        {"out", options.out.string()},
        {"scale", found.scale.value},
        {"standard_error", found.scale.standard_error},
        {"num_examples_used", found.num_examples_used}};
    fmt::print("{}\n", json_text(json, 2));
  } else if (!common.quiet) {
    fmt::print(
        "{}: scale {:.4g} ± {:.2g} on {} examples\n",
        options.out.string(),
        found.scale.value,
        found.scale.standard_error,
        found.num_examples_used);
  }
}

} // namespace

Work define_calibrate(CLI::App& parser, const CommonOptions& common) {
  auto options = std::make_shared<Options>();
  FisherScaleOptions& o = options->scale;
  parser.add_option("--fisher", o.fisher, "Fisher file to calibrate")
      ->required();
  add_model(parser, "--model", o.model, "Model directory of the Fisher")
      ->required();
  add_model(
      parser,
      "--merge",
      o.merge,
      "Model directory of a merge, such as the plain average")
      ->required();
  parser
      .add_option(
          "--data", o.data, "Labelled data of the model: .jsonl, .csv, .tsv")
      ->required();
  parser
      .add_option(
          "--out",
          options->out,
          "File to write (.safetensors): the Fisher with its scale")
      ->required();
  add_limit(parser, o.limit, "Number of examples to use; -1: all");
  add_seed(parser, o.seed, "Random seed for the examples");
  add_batch_size(parser, o.batch_size);
  add_max_length(parser, o.max_length);
  add_dtype(parser, o.bfloat16);
  return [options, &common] { calibrate(*options, common); };
}

} // namespace merganser::app
