#include <algorithm>
#include <numeric>

#include "merganser/base/json_text.h"
#include "merganser/experiment/layout.h"
#include "merganser/experiment/stages.h"
#include "merganser/io/atomic_file.h"
#include "merganser/model/classifier.h"

namespace merganser {
namespace {

namespace fs = std::filesystem;

template <typename Use>
void for_each_file(const DataFiles& files, const Use& use) {
  use("train", files.train);
  if (!files.validation.empty()) {
    use("validation", files.validation);
  }
  use("test", files.test);
}

// Number of examples of each label.
Json count_labels(
    const fs::path& file,
    const Tokenizer& tokenizer,
    const EncoderConfig& config,
    int64_t max_length) {
  std::vector<int64_t> counts(config.num_labels);
  for (const int64_t label :
       load_data(file, tokenizer, config, max_length).labels) {
    ++counts[label];
  }
  return counts;
}

Json count_labels(const Workplace& work) {
  const Experiment& experiment = work.experiment;
  const auto tokenizer = Tokenizer::load(experiment.encoder);
  const EncoderConfig config = EncoderConfig::read(
      experiment.encoder, experiment.base.options.num_labels);
  const auto count = [&](const fs::path& file) {
    return count_labels(file, *tokenizer, config, experiment.max_length);
  };
  Json counts;
  for (size_t i = 0; i < work.data.size(); ++i) {
    for_each_file(work.data[i], [&](const char* part, const fs::path& file) {
      counts[experiment.data[i].name][part] = count(file);
    });
  }
  return counts;
}

} // namespace

std::vector<double> check_data(Workplace& work) {
  const Experiment& experiment = work.experiment;
  Json inputs = {
      {"encoder", work.runner.hash(experiment.encoder)},
      {"num_labels", experiment.base.options.num_labels},
      {"max_length", experiment.max_length}};
  for (size_t i = 0; i < work.data.size(); ++i) {
    for_each_file(work.data[i], [&](const char* part, const fs::path& file) {
      inputs["data"][experiment.data[i].name][part] = work.runner.hash(file);
    });
  }
  const fs::path file = work.in(layout::kData);
  work.runner.run(
      {.name = "data",
       .unit = "sets",
       .inputs = inputs,
       .outputs = {file},
       .work = [&](const ProgressCallback&) {
         write_file(file, json_text(count_labels(work), 1) + "\n");
       }});

  const Json counts = parse_json(read_file(file));
  std::vector<double> majorities;
  for (const ExperimentData& data : experiment.data) {
    const std::vector<double> test = counts[data.name]["test"];
    majorities.push_back(
        std::ranges::max(test) / std::reduce(test.begin(), test.end()));
  }
  return majorities;
}

} // namespace merganser
