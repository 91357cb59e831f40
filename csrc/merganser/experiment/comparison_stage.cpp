#include "merganser/experiment/comparison_stage.h"

#include <fstream>
#include <iterator>
#include <unordered_map>
#include <utility>

#include "merganser/base/interrupt.h"
#include "merganser/base/json_text.h"
#include "merganser/eval/comparison.h"
#include "merganser/eval/predictions.h"
#include "merganser/experiment/layout.h"
#include "merganser/io/atomic_file.h"

namespace merganser {
namespace {

namespace fs = std::filesystem;

// Predictions of a model in all experiments.
std::vector<Predictions> load_pooled(
    const ComparisonTask& task,
    const std::string& model) {
  std::vector<Predictions> pooled;
  for (const fs::path& experiment : task.experiments) {
    std::vector<Predictions> part =
        load_predictions(experiment / layout::predictions(model), task.sets);
    if (pooled.empty()) {
      pooled = std::move(part);
      continue;
    }
    for (size_t i = 0; i < part.size(); ++i) {
      auto& [name, probabilities, labels] = pooled[i];
      probabilities.insert(
          probabilities.end(),
          part[i].probabilities.begin(),
          part[i].probabilities.end());
      labels.insert(labels.end(), part[i].labels.begin(), part[i].labels.end());
    }
  }
  return pooled;
}

// The texts of the pooled examples: the same line of the experiments' samples
// or, where a set has none, the same position.
Texts texts_of(
    const ComparisonTask& task,
    const std::vector<Predictions>& pooled) {
  if (task.experiments.size() == 1) {
    return {};
  }
  Texts texts(task.sets.size());
  for (size_t set = 0; set < task.sets.size(); ++set) {
    std::unordered_map<std::string, size_t> numbers;
    const size_t whole = pooled[set].labels.size() / task.experiments.size();
    for (const fs::path& experiment : task.experiments) {
      std::ifstream sample(experiment / layout::sample(task.sets[set], "test"));
      if (!sample) {
        for (size_t i = 0; i < whole; ++i) {
          texts[set].push_back(i);
        }
        continue;
      }
      std::string line;
      while (std::getline(sample, line)) {
        const auto [number, is_new] = numbers.emplace(line, numbers.size());
        texts[set].push_back(number->second);
      }
    }
  }
  return texts;
}

Json compare_all(const ComparisonTask& task, const ProgressCallback& progress) {
  std::vector<std::vector<Predictions>> predictions;
  for (const std::string& model : task.models) {
    predictions.push_back(load_pooled(task, model));
  }
  const Texts texts = texts_of(task, predictions.front());
  const int64_t count = std::ssize(task.models);
  const int64_t pairs = count * (count - 1) / 2;
  Json found = Json::array();
  for (size_t a = 0; a < task.models.size(); ++a) {
    for (size_t b = a + 1; b < task.models.size(); ++b) {
      check_interrupt();
      found.push_back({{"a", task.models[a]}, {"b", task.models[b]}});
      found.back().update(
          to_json(compare(predictions[a], predictions[b], task.seed, texts)));
      progress(std::ssize(found), pairs, "");
    }
  }
  return found;
}

} // namespace

Json compare_models(StageRunner& runner, const ComparisonTask& task) {
  Json inputs = {{"sets", task.sets}, {"seed", task.seed}};
  if (task.experiments.size() > 1) {
    inputs["units"] = "texts"; // versions before pooled examples
  }
  for (const std::string& model : task.models) {
    for (const fs::path& experiment : task.experiments) {
      inputs["models"][model].push_back(
          runner.hash(experiment / layout::predictions(model)));
    }
  }
  const fs::path file = task.folder / layout::kComparisons;
  runner.run(
      {.name = "comparisons",
       .unit = "pairs",
       .inputs = inputs,
       .outputs = {file},
       .work = [&](const ProgressCallback& progress) {
         write_file(file, json_text(compare_all(task, progress), 1) + "\n");
       }});
  return parse_json(read_file(file));
}

} // namespace merganser
