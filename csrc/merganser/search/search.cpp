#include "merganser/search/search.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>

#include "merganser/base/error.h"
#include "merganser/eval/evaluate.h"
#include "merganser/io/atomic_file.h"
#include "merganser/io/durable.h"
#include "merganser/io/hash.h"
#include "merganser/plan/check_inputs.h"
#include "merganser/plan/planner.h"
#include "merganser/provenance/provenance.h"
#include "merganser/recipe/recipe_text.h"
#include "merganser/search/trial_journal.h"
#include "merganser/search/trial_model.h"
#include "merganser/text/batching.h"

namespace merganser {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

// Adds the seconds of its life.
class Timer {
 public:
  explicit Timer(double& seconds) : seconds_(seconds) {}
  ~Timer() {
    const std::chrono::duration<double> passed = Clock::now() - start_;
    seconds_ += passed.count();
  }
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

 private:
  using Clock = std::chrono::steady_clock;
  double& seconds_;
  Clock::time_point start_ = Clock::now();
};

// A plan of the recipe as the user wrote it.
MergePlan checked_plan(const Recipe& recipe) {
  if (!recipe.slices.empty()) {
    throw InputError(
        fmt::format("{}: a search expects models, got slices", recipe.source));
  }
  if (recipe.heads == HeadMode::kPerTask) {
    throw InputError(fmt::format(
        "{}: a search evaluates one model, got heads: {}",
        recipe.source,
        head_mode_name(recipe.heads)));
  }
  MergePlan plan = make_plan(recipe);
  if (plan.outputs.size() > 1) {
    throw InputError(fmt::format(
        "{}: a search expects a recipe of one model, got a sweep of {}; use "
        "--over in its place",
        recipe.source,
        plan.outputs.size()));
  }
  // The halves that the plan has not compared.
  Problems problems;
  check_hashes(
      plan,
      [&](size_t input) { return plan.inputs[input]->content_hash(); },
      problems);
  problems.throw_if_any(recipe.source);
  return plan;
}

// The same recipe for a file in another directory.
Recipe moved_to(const fs::path& folder, Recipe recipe) {
  const auto move = [&](fs::path& path) {
    path = with_name(path).lexically_relative(with_name(folder));
  };
  const auto move_given = [&](std::optional<fs::path>& path) {
    if (path) {
      move(*path);
    }
  };
  move_given(recipe.base_model);
  move_given(recipe.base_fisher);
  move_given(recipe.base_gram);
  move_given(recipe.subspace);
  for (RecipeModel& model : recipe.models) {
    move(model.model);
    move_given(model.adapter);
    move_given(model.fisher);
    move_given(model.gram);
  }
  return recipe;
}

Dataset subset(const Dataset& data, const std::vector<int64_t>& positions) {
  Dataset part{.path = data.path, .ids = {}, .labels = {}};
  for (const int64_t i : positions) {
    part.ids.push_back(data.ids[i]);
    part.labels.push_back(data.labels[i]);
    if (!data.token_types.empty()) {
      part.token_types.push_back(data.token_types[i]);
    }
  }
  return part;
}

class Search {
 public:
  explicit Search(const SearchOptions& options)
      : options_(options),
        given_(Recipe::load(options.recipe)),
        plan_(checked_plan(given_)),
        recipe_(moved_to(options.out, given_)),
        model_(plan_) {
    result_.space = parse_search_space(given_, options.over);
    result_.data = options.data;
    result_.by_loss = options.by_loss;
    result_.best_recipe = options.out / "best.yaml";
    for (const fs::path& file : options.data) {
      const Dataset all = model_.classifier().load(file, options.max_length);
      data_.push_back(
          subset(all, draw_subset(all.size(), options.limit, options.seed)));
    }
  }

  SearchResult run(const ProgressCallback& progress) {
    TrialJournal journal(options_.out, description());
    Proposals proposals(result_.space, options_.seed);
    const auto earlier = journal.earlier();
    const auto total = static_cast<size_t>(options_.trials) + 1;
    while (result_.trials.size() < std::max(total, earlier.size())) {
      const size_t position = result_.trials.size();
      std::vector<std::string> values;
      if (position > 0) {
        const auto point = proposals.next();
        if (!point) {
          break; // all combinations
        }
        values = at(*point);
      }
      if (position < earlier.size()) {
        add(known(earlier[position], values, position));
      } else {
        add(attempt(values, position));
        journal.add(to_json(
            position, result_.trials.back(), result_.space, result_.data));
        ++result_.tried;
      }
      write_best();
      if (position > 0) {
        proposals.tell(result_.trials.back().score(options_.by_loss));
      }
      if (progress) {
        report(progress, total);
      }
    }
    return std::move(result_);
  }

 private:
  // All that the trials depend on.
  Json description() const {
    Json hashes = Json::array();
    for (const auto& input : plan_.inputs) {
      // Metadata of Fishers, settings of adapters: not part of the content.
      hashes.push_back(input->head_hash() + settings_hash(*input));
    }
    Json data = Json::array();
    for (const fs::path& file : options_.data) {
      data.push_back(hash_file(file));
    }
    return {
        {"recipe", recipe_text(recipe_)},
        {"inputs", hashes},
        {"over", options_.over},
        {"data", data},
        {"limit", options_.limit},
        {"seed", options_.seed},
        {"objective", options_.by_loss ? "loss" : "accuracy"},
        {"batch-size", options_.batch_size},
        {"max-length", options_.max_length},
        {"dtype", options_.bfloat16 ? "bfloat16" : "float32"}};
  }

  std::vector<std::string> at(const SearchPoint& point) const {
    std::vector<std::string> values;
    for (size_t i = 0; i < point.size(); ++i) {
      values.push_back(result_.space[i].at(point[i]));
    }
    return values;
  }

  std::string text_of(const std::vector<std::string>& values) const {
    const SearchSpace& space = result_.space;
    return recipe_text(
        values.empty() ? recipe_ : with_values(recipe_, space, values));
  }

  const Trial& known(
      const Trial& trial,
      const std::vector<std::string>& values,
      size_t position) const {
    if (trial.values != values) {
      throw InputError(fmt::format(
          "{}: trial {} of the journal has values different from those that "
          "this version of Merganser proposes; choose another output path",
          options_.out.string(),
          position));
    }
    return trial;
  }

  Trial attempt(const std::vector<std::string>& values, size_t position) {
    Trial trial{.values = values, .sets = {}, .refused = {}};
    try {
      const Timer timer(result_.merge_seconds);
      model_.merge(make_plan(Recipe::parse(
          text_of(values), options_.out, fmt::format("trial {}", position))));
    } catch (const InputError& error) {
      if (position == 0) {
        throw;
      }
      make_plan(given_); // throws if the files are at fault, not the values
      trial.refused = error.what();
      return trial;
    }
    const Timer timer(result_.evaluation_seconds);
    Classifier& classifier = model_.classifier();
    try {
      for (const Dataset& data : data_) {
        trial.sets.push_back(evaluate(
            classifier.encoder,
            data,
            classifier.tokenizer->pad_id(),
            options_.batch_size,
            options_.bfloat16));
      }
    } catch (const NonfiniteLoss& error) {
      if (position == 0) {
        throw;
      }
      trial.sets.clear();
      trial.refused = error.what();
    }
    return trial;
  }

  void add(Trial trial) {
    result_.trials.push_back(std::move(trial));
    const size_t last = result_.trials.size() - 1;
    const auto score = result_.trials[last].score(options_.by_loss);
    if (last == 0 || (score && *score < *best().score(options_.by_loss))) {
      best_ = last;
    }
  }

  const Trial& best() const {
    return result_.trials[best_];
  }

  // Writes the best recipe if it is the last one tried.
  void write_best() const {
    if (best_ + 1 == result_.trials.size()) {
      write_file(result_.best_recipe, text_of(best().values));
    }
  }

  void report(const ProgressCallback& progress, size_t total) const {
    progress(
        static_cast<int64_t>(result_.trials.size()),
        static_cast<int64_t>(std::max(total, result_.trials.size())),
        fmt::format(
            "best loss {:.4f}, accuracy {:.1f} %",
            best().loss(),
            100 * best().accuracy()));
  }

  const SearchOptions& options_;
  Recipe given_;
  MergePlan plan_;
  Recipe recipe_; // with its paths from the output's directory
  TrialModel model_;
  std::vector<Dataset> data_;
  SearchResult result_;
  size_t best_ = 0; // position in the trials
};

} // namespace

SearchResult search(
    const SearchOptions& options,
    const ProgressCallback& progress) {
  check_options(options);
  return Search(options).run(progress);
}

} // namespace merganser
