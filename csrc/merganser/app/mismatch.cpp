// merganser mismatch --base DIR --expert DIR --data F ... --model DIR ...

#include "merganser/objective/mismatch.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "merganser/app/commands.h"
#include "merganser/app/model_option.h"
#include "merganser/app/objective_arguments.h"
#include "merganser/base/error.h"
#include "merganser/base/progress.h"

namespace merganser::app {
namespace {

struct Options {
  ObjectiveArguments objective;
  std::vector<std::filesystem::path> models;
  std::optional<std::filesystem::path> target;
  Grouping groups = Grouping::kGlobal;
};

MismatchResult measure(const Options& options, const CommonOptions& common) {
  if (options.models.empty() && !options.target) {
    throw InputError("expected --model or --target");
  }
  if (options.target && !options.objective.options.base_fisher) {
    throw InputError("--target needs --base-fisher");
  }
  std::vector<std::filesystem::path> models = options.models;
  if (options.target) {
    models.push_back(*options.target);
  }
  std::optional<MismatchMeter> meter;
  {
    ProgressBar bar("experts", "examples", common.quiet);
    meter.emplace(
        options.objective.objective(), options.groups, models, bar.callback());
  }
  MismatchResult result = meter->header();
  const auto add = [&](const std::filesystem::path& model,
                       MismatchMeter::Role role) {
    ProgressBar bar(model.string(), "examples", common.quiet);
    result.models.push_back(meter->measure(model, role, bar.callback()));
  };
  for (const std::filesystem::path& model : options.models) {
    add(model, MismatchMeter::Role::kCandidate);
  }
  if (options.target) {
    add(*options.target, MismatchMeter::Role::kTarget);
  }
  return result;
}

} // namespace

Work define_mismatch(CLI::App& parser, const CommonOptions& common) {
  auto options = std::make_shared<Options>();
  add_objective_arguments(parser, options->objective);
  add_model(
      parser,
      "--model",
      options->models,
      "Model directory to measure; repeatable");
  add_model(
      parser,
      "--target",
      options->target,
      "Model directory of the jointly trained target: also measured, and "
      "compared with task arithmetic (needs --base-fisher)");
  parser.add_option_function<std::string>(
      "--groups",
      [options = options.get()](const std::string& name) {
        options->groups = parse_grouping(name);
      },
      "Also report norms per group: block (attention and MLP of each layer, "
      "embeddings, head) or tensor");
  return [options, &common] {
    const MismatchResult result = measure(*options, common);
    fmt::print("{}", common.json ? result.to_json() + "\n" : result.to_text());
  };
}

} // namespace merganser::app
