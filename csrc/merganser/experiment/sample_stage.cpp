#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>

#include "merganser/base/error.h"
#include "merganser/base/json_text.h"
#include "merganser/experiment/layout.h"
#include "merganser/experiment/stages.h"
#include "merganser/io/atomic_file.h"
#include "merganser/model/config.h"
#include "merganser/text/batching.h"

namespace merganser {
namespace {

namespace fs = std::filesystem;

// Files with at most `limit` lines have at most as many examples.
bool may_exceed(const fs::path& file, int64_t limit) {
  std::ifstream stream(file);
  std::string line;
  int64_t lines = 0;
  while (lines <= limit && std::getline(stream, line)) {
    ++lines;
  }
  return lines > limit;
}

// Positions of a file's examples, ascending.
struct TrainingParts {
  std::vector<int64_t> train;
  std::vector<int64_t> validation;
};

TrainingParts split(
    const ExperimentData& data,
    double validation,
    int64_t size,
    uint64_t seed) {
  const int64_t held_out = validation < 1
      ? std::llround(validation * static_cast<double>(size))
      : static_cast<int64_t>(validation);
  if (held_out >= size || (validation > 0 && held_out == 0)) {
    throw InputError(fmt::format(
        "{}: expected a validation part between 1 example and all but one, got "
        "{} of {}",
        data.train.string(),
        held_out,
        size));
  }
  TrainingParts parts;
  parts.validation = draw_subset(size, held_out, seed);
  // A draw with the same seed contains the smaller one.
  const int64_t limit = data.limit_train;
  const std::vector<int64_t> all = draw_subset(
      size,
      limit < 0 || limit >= size - held_out ? -1 : held_out + limit,
      seed);
  std::ranges::set_difference(
      all, parts.validation, std::back_inserter(parts.train));
  return parts;
}

void write_examples(
    const fs::path& file,
    const std::vector<TextExample>& examples,
    const std::vector<int64_t>& positions) {
  std::string lines;
  for (const int64_t i : positions) {
    Json json = {{"text", examples[i].text}};
    if (examples[i].text_pair) {
      json["text_pair"] = *examples[i].text_pair;
    }
    json["label"] = examples[i].label;
    lines += json_text(json) + "\n";
  }
  fs::create_directories(file.parent_path());
  write_file(file, lines);
}

} // namespace

DataFiles sample_data(Workplace& work, const ExperimentData& data) {
  const Experiment& experiment = work.experiment;
  DataFiles files{data.train, {}, data.test};
  Stage stage{
      .name = "sample " + data.name,
      .unit = "files",
      .inputs = {{"seed", experiment.seed}},
      .outputs = {},
      .work = {}};
  const auto replace = [&](fs::path& file, const char* part) {
    file = work.in(layout::sample(data.name, part));
    stage.outputs.push_back(file);
  };
  if (data.limit_train >= 0 || experiment.validation > 0) {
    replace(files.train, "train");
  }
  if (experiment.validation > 0) {
    replace(files.validation, "validation");
  }
  if (data.limit_test >= 0 && may_exceed(data.test, data.limit_test)) {
    replace(files.test, "test");
  }
  if (stage.outputs.empty()) {
    return files;
  }
  const EncoderConfig config = EncoderConfig::read(
      experiment.encoder, experiment.base.options.num_labels);
  stage.inputs.update(
      {{"label_names", config.label_names},
       {"train", work.runner.hash(data.train)},
       {"validation", experiment.validation},
       {"limit_train", data.limit_train}});
  if (files.test != data.test) {
    stage.inputs["test"] = work.runner.hash(data.test);
    stage.inputs["limit_test"] = data.limit_test;
  }
  stage.work = [&](const ProgressCallback&) {
    const uint64_t seed = experiment.seed;
    if (files.train != data.train) {
      const auto examples = read_examples(data.train, config.label_names);
      const TrainingParts parts =
          split(data, experiment.validation, std::ssize(examples), seed);
      write_examples(files.train, examples, parts.train);
      if (experiment.validation > 0) {
        write_examples(files.validation, examples, parts.validation);
      }
    }
    if (files.test != data.test) {
      const auto examples = read_examples(data.test, config.label_names);
      write_examples(
          files.test,
          examples,
          draw_subset(std::ssize(examples), data.limit_test, seed));
    }
  };
  work.runner.run(stage);
  return files;
}

} // namespace merganser
