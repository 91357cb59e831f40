#include "merganser/app/objective_arguments.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "merganser/app/model_option.h"
#include "merganser/app/torch_options.h"
#include "merganser/base/error.h"

namespace merganser::app {

ObjectiveOptions ObjectiveArguments::objective() const {
  const auto require = [&](size_t count, const char* option, const char* rule) {
    if (count != experts.size()) {
      throw InputError(fmt::format(
          "expected {} {}, got {} for {} experts",
          option,
          rule,
          count,
          experts.size()));
    }
  };
  require(data.size(), "--data", "once per expert");
  if (!fishers.empty()) {
    require(fishers.size(), "--fisher", "once per expert, or not at all");
  }
  if (weights.size() > 1) {
    require(weights.size(), "--weight", "once, or once per expert");
  }
  ObjectiveOptions result = options;
  for (size_t t = 0; t < experts.size(); ++t) {
    ObjectiveTask task{.expert = experts[t], .data = data[t], .fisher = {}};
    if (!fishers.empty()) {
      task.fisher = fishers[t];
    }
    if (!weights.empty()) {
      task.weight = weights.size() == 1 ? weights[0] : weights[t];
    }
    result.tasks.push_back(task);
  }
  return result;
}

void add_objective_arguments(CLI::App& parser, ObjectiveArguments& a) {
  ObjectiveOptions& o = a.options;
  add_model(parser, "--base", o.base, "Model directory of the base")
      ->required();
  add_model(
      parser, "--expert", a.experts, "Model directory of an expert; repeatable")
      ->required();
  parser
      .add_option(
          "--data",
          a.data,
          "Training data of each expert, in the same order: .jsonl, .csv, .tsv")
      ->required();
  parser.add_option(
      "--fisher", a.fishers, "Fisher of each expert, in the same order");
  parser.add_option("--base-fisher", o.base_fisher, "Fisher of the base");
  parser.add_option(
      "--weight",
      a.weights,
      "Weight of each expert, or one for all; default 1");
  add_limit(parser, o.limit, "Number of examples per expert to use; -1: all");
  add_seed(parser, o.seed, "Random seed for the examples");
  add_batch_size(parser, o.batch_size);
  add_max_length(parser, o.max_length);
  add_dtype(parser, o.bfloat16);
}

} // namespace merganser::app
