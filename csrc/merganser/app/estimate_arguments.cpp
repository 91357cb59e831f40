#include "merganser/app/estimate_arguments.h"

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>

#include "merganser/base/error.h"
#include "merganser/io/fisher_file.h"

namespace merganser::app {
namespace {

bool is_of_kind(const std::filesystem::path& file, OutKind kind) {
  const auto metadata =
      FisherMetadata::parse(SafetensorsFile(file).metadata(), file);
  return metadata &&
      (metadata->estimator == kGramEstimator) == (kind == OutKind::kGram);
}

} // namespace

void add_estimate_arguments(CLI::App& parser, EstimateArguments& arguments) {
  parser.add_option("--model", arguments.model, "Model directory")->required();
  parser
      .add_option("--data", arguments.data, "Labelled data: .jsonl, .csv, .tsv")
      ->required();
  parser.add_option("--out", arguments.out, "File to write (.safetensors)")
      ->required();
}

void check_out(const std::filesystem::path& out, OutKind kind) {
  if (out.extension() != ".safetensors") {
    throw InputError(
        fmt::format("--out must end in .safetensors, got {}", out.string()));
  }
  if (std::filesystem::exists(out) && !is_of_kind(out, kind)) {
    throw InputError(fmt::format(
        "{}: exists and is not a {} file; choose another output path",
        out.string(),
        kind == OutKind::kGram ? "Gram" : "Fisher"));
  }
}

void create_parent_directory(const std::filesystem::path& out) {
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

} // namespace merganser::app
