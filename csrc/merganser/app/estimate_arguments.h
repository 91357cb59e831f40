#pragma once

#include <cstdint>
#include <filesystem>

#include "merganser/app/commands.h"
#include "merganser/base/progress.h"
#include "merganser/io/checkpoint.h"
#include "merganser/model/classifier.h"

namespace merganser::app {

// The files of a command that estimates something of a model on data.
struct EstimateArguments {
  std::filesystem::path model;
  std::filesystem::path data;
  std::filesystem::path out;
  int64_t max_length = 128;
};

void add_estimate_arguments(CLI::App& parser, EstimateArguments& arguments);

// Refuses a file to overwrite that is not of this kind: the model, the data, or
// a Fisher in place of Gram matrices.
enum class OutKind { kFisher, kGram };
void check_out(const std::filesystem::path& out, OutKind kind);

// Throws InputError where the file could not be written: checked before the
// work, which would otherwise be lost.
void create_parent_directory(const std::filesystem::path& out);

// Writes estimate(classifier, data, progress), and returns it.
template <typename Estimate>
auto estimate_to_file(
    const EstimateArguments& arguments,
    OutKind kind,
    const CommonOptions& common,
    const Estimate& estimate) {
  check_out(arguments.out, kind);
  Classifier classifier(arguments.model);
  const Dataset data = classifier.load(arguments.data, arguments.max_length);
  create_parent_directory(arguments.out);
  auto result = [&] {
    ProgressBar bar(
        kind == OutKind::kGram ? "gram" : "fisher", "examples", common.quiet);
    return estimate(classifier, data, bar.callback());
  }();
  result.model_hash = Checkpoint(arguments.model).content_hash();
  result.save(arguments.out);
  return result;
}

} // namespace merganser::app
