#pragma once

#include <functional>
#include <string_view>

namespace CLI {
class App;
}

namespace merganser::app {

struct CommonOptions {
  bool quiet = false; // no progress on stderr
  bool verbose = false; // more details on stderr
  bool json = false; // the result as JSON on stdout
};

// A command's own options and arguments, added to `parser`; returns the work to
// do once they are parsed. The work returns normally (exit code 0) or throws:
// InputError for exit code 2, anything else for 1.
using Work = std::function<void()>;
using DefineCommand = Work (*)(CLI::App& parser, const CommonOptions& common);

// Every command of `merganser`, in the order of its help.
struct CommandInfo {
  std::string_view name;
  std::string_view summary;
};

inline constexpr CommandInfo kCommands[] = {
    {"train", "fine-tune a model and optionally collect its Fisher"},
    {"fisher", "estimate the diagonal Fisher of a model on data"},
    {"calibrate",
     "measure a Fisher's scale along the path from its model to a merge"},
    {"gram", "collect the Gram matrices of a model's linear layers on data"},
    {"subspace",
     "estimate Fishers of a base and experts in the span of task vectors"},
    {"merge", "merge models with a recipe"},
    {"plan", "show what a merge would do: tensors, bytes, memory, problems"},
    {"methods", "list the merge methods, their formulas and parameters"},
    {"search", "search a recipe's parameters on validation data"},
    {"eval", "evaluate accuracy and loss of a model on data"},
    {"mismatch",
     "measure the gradient mismatch of merged models, without test data"},
    {"refine", "take a few steps from a merge towards the joint optimum"},
    {"posterior",
     "multiply experts' Laplace posteriors; the mean is a merge of the "
     "experts"},
    {"inspect",
     "show names, shapes, types, metadata and hashes of a checkpoint"},
    {"verify", "check that a merged model and its inputs are unchanged"},
    {"run", "run an experiment: fine-tune, Fisher, merge, evaluate"},
    {"report", "write a page with the results of an experiment"},
    {"download", "download models from the Hugging Face Hub into its cache"},
};

// Commands of the executable `merganser`, without torch.
Work define_merge(CLI::App& parser, const CommonOptions& common);
Work define_plan(CLI::App& parser, const CommonOptions& common);
Work define_inspect(CLI::App& parser, const CommonOptions& common);
Work define_methods(CLI::App& parser, const CommonOptions& common);
Work define_verify(CLI::App& parser, const CommonOptions& common);

// Commands of the executable `merganser-torch`.
Work define_train(CLI::App& parser, const CommonOptions& common);
Work define_fisher(CLI::App& parser, const CommonOptions& common);
Work define_calibrate(CLI::App& parser, const CommonOptions& common);
Work define_gram(CLI::App& parser, const CommonOptions& common);
Work define_eval(CLI::App& parser, const CommonOptions& common);
Work define_mismatch(CLI::App& parser, const CommonOptions& common);
Work define_refine(CLI::App& parser, const CommonOptions& common);
Work define_posterior(CLI::App& parser, const CommonOptions& common);
Work define_subspace(CLI::App& parser, const CommonOptions& common);
Work define_search(CLI::App& parser, const CommonOptions& common);
Work define_run(CLI::App& parser, const CommonOptions& common);

} // namespace merganser::app
