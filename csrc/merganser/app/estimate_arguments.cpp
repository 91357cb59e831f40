#include "merganser/app/estimate_arguments.h"

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <system_error>

#include "merganser/app/model_option.h"
#include "merganser/base/error.h"
#include "merganser/io/checkpoint.h"
#include "merganser/io/fisher_file.h"
#include "merganser/io/subspace_file.h"

namespace merganser::app {
namespace {

// The estimator that wrote a file; empty for a file of another kind.
std::string estimator_of(const std::filesystem::path& file) {
  const Metadata metadata = SafetensorsFile(file).metadata();
  const auto estimator = metadata.find("estimator");
  return metadata.contains("format_version") && estimator != metadata.end()
      ? estimator->second
      : "";
}

} // namespace

void add_estimate_arguments(CLI::App& parser, EstimateArguments& arguments) {
  add_model(parser, "--model", arguments.model, "Model directory")->required();
  parser
      .add_option("--data", arguments.data, "Labelled data: .jsonl, .csv, .tsv")
      ->required();
  parser.add_option("--out", arguments.out, "File to write (.safetensors)")
      ->required();
}

void check_output(
    const std::filesystem::path& out,
    std::string_view kind,
    const std::function<bool(std::string_view estimator)>& is_ours) {
  if (out.extension() != ".safetensors") {
    throw InputError(
        fmt::format("--out must end in .safetensors, got {}", out.string()));
  }
  if (std::filesystem::exists(out) && !is_ours(estimator_of(out))) {
    throw InputError(fmt::format(
        "{}: exists and is not a {}; choose another output path",
        out.string(),
        kind));
  }
  const std::filesystem::path directory =
      std::filesystem::absolute(out).parent_path();
  std::error_code failed;
  std::filesystem::create_directories(directory, failed);
  if (failed) {
    throw InputError(fmt::format(
        "cannot create directory {}: {}",
        directory.string(),
        failed.message()));
  }
  if (access(directory.c_str(), W_OK) != 0) {
    throw InputError(fmt::format(
        "{}: no write permission; choose another output path",
        directory.string()));
  }
}

void check_fisher_output(const std::filesystem::path& out) {
  check_output(out, "Fisher file", [](std::string_view estimator) {
    return !estimator.empty() && estimator != kSubspaceEstimator &&
        estimator != kGramEstimator;
  });
}

} // namespace merganser::app
