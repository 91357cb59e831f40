#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string_view>

#include "merganser/app/commands.h"
#include "merganser/base/progress.h"
#include "merganser/fisher/estimate_on_files.h"

namespace merganser::app {

// The files of a command that estimates something of a model on data.
struct EstimateArguments {
  std::filesystem::path model;
  std::filesystem::path data;
  std::filesystem::path out;
  int64_t max_length = 128;
};

void add_estimate_arguments(CLI::App& parser, EstimateArguments& arguments);

// Checks the output path of a long estimation before it begins, and creates its
// directory. `kind`: of file ("Fisher file"); `is_ours`: true if the estimator
// of an existing file is of this kind. Others, such as models and data, are
// never overwritten. Throws InputError.
void check_output(
    const std::filesystem::path& out,
    std::string_view kind,
    const std::function<bool(std::string_view estimator)>& is_ours);

// check_output for a diagonal Fisher.
void check_fisher_output(const std::filesystem::path& out);

// Returns the result of `estimate` (estimate_fisher, estimate_gram) with the
// model's hash.
template <typename Options, typename Estimate>
auto estimate_on_data(
    const EstimateArguments& arguments,
    const char* title,
    const CommonOptions& common,
    const Estimate& estimate,
    const Options& options) {
  ProgressBar bar(title, "examples", common.quiet);
  return estimate_on_files(
      arguments.model,
      {arguments.data},
      arguments.max_length,
      estimate,
      options,
      bar.callback());
}

} // namespace merganser::app
