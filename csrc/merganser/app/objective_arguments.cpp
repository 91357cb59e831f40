#include "merganser/app/objective_arguments.h"

#include <CLI/CLI.hpp>

#include "merganser/app/model_option.h"
#include "merganser/app/per_expert.h"
#include "merganser/app/torch_options.h"

namespace merganser::app {

ObjectiveOptions ObjectiveArguments::objective() const {
  const size_t count = experts.size();
  check_per_expert(data.size(), "--data", "once per expert", count);
  if (!fishers.empty()) {
    check_per_expert(
        fishers.size(), "--fisher", "once per expert, or not at all", count);
  }
  const std::vector<double> weight = weights_per_expert(weights, count);
  ObjectiveOptions result = options;
  for (size_t t = 0; t < count; ++t) {
    ObjectiveTask task{
        .expert = experts[t],
        .data = data[t],
        .fisher = {},
        .weight = weight[t]};
    if (!fishers.empty()) {
      task.fisher = fishers[t];
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
