#pragma once

#include <string_view>

#include "merganser/app/command.h"

namespace merganser::app {

// Every verb of `merganser`, in the order of its help.
struct VerbInfo {
  std::string_view name;
  std::string_view summary;
};

inline constexpr VerbInfo kVerbs[] = {
    {"train", "fine-tune a model, and collect its Fisher meanwhile"},
    {"fisher", "estimate the diagonal Fisher of a model on data"},
    {"merge", "merge models as a recipe says"},
    {"plan", "say what a merge would do: tensors, bytes, memory, problems"},
    {"methods", "the merge methods, their formulas and parameters"},
    {"eval", "accuracy and loss of a model on data"},
    {"inspect", "names, shapes, types, metadata and hashes of a checkpoint"},
    {"verify", "whether a merged model and its inputs are still the same"},
    {"run", "an experiment: fine-tune, Fisher, merge, evaluate"},
};

// Of the executable `merganser`: no torch.
Work define_merge(CLI::App& parser, const CommonOptions& common);
Work define_plan(CLI::App& parser, const CommonOptions& common);
Work define_inspect(CLI::App& parser, const CommonOptions& common);
Work define_methods(CLI::App& parser, const CommonOptions& common);
Work define_verify(CLI::App& parser, const CommonOptions& common);

// Of the executable `merganser-torch`.
Work define_train(CLI::App& parser, const CommonOptions& common);
Work define_fisher(CLI::App& parser, const CommonOptions& common);
Work define_eval(CLI::App& parser, const CommonOptions& common);
Work define_run(CLI::App& parser, const CommonOptions& common);

} // namespace merganser::app
