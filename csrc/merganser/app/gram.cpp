// merganser gram --model DIR --data F --out FILE

#include "merganser/fisher/gram.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "merganser/app/commands.h"
#include "merganser/app/estimate_arguments.h"
#include "merganser/app/torch_options.h"
#include "merganser/base/json_text.h"
#include "merganser/io/fisher_file.h"

namespace merganser::app {
namespace {

struct Options {
  EstimateArguments files;
  GramOptions gram;
};

void gram(const Options& options, const CommonOptions& common) {
  const EstimateArguments& files = options.files;
  check_output(files.out, "Gram file", [](std::string_view estimator) {
    return estimator == kGramEstimator;
  });
  const GramResult result =
      estimate_on_data(files, "gram", common, estimate_gram, options.gram);
  result.save(files.out);
  if (common.json) {
    const nlohmann::ordered_json json = {
        {"out", files.out.string()},
        {"num_examples", result.num_examples},
        {"num_examples_used", result.num_examples_used}};
    fmt::print("{}\n", json_text(json, 2));
  } else if (!common.quiet) {
    fmt::print(
        "{}: {} Gram matrices of {} on {} of {} examples\n",
        files.out.string(),
        result.matrices.size(),
        files.model.string(),
        result.num_examples_used,
        result.num_examples);
  }
}

} // namespace

Work define_gram(CLI::App& parser, const CommonOptions& common) {
  auto options = std::make_shared<Options>();
  add_estimate_arguments(parser, options->files);
  GramOptions& o = options->gram;
  add_limit(parser, o.limit, "Number of examples to use; -1: all");
  add_seed(parser, o.seed, "Random seed for the subset");
  add_batch_size(parser, o.batch_size);
  add_max_length(parser, options->files.max_length);
  add_dtype(parser, o.bfloat16);
  return [options, &common] { gram(*options, common); };
}

} // namespace merganser::app
