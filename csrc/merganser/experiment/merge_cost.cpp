#include "merganser/experiment/merge_cost.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "merganser/experiment/layout.h"
#include "merganser/io/checkpoint.h"
#include "merganser/io/fisher_file.h"
#include "merganser/io/subspace_file.h"

namespace merganser {
namespace {

namespace fs = std::filesystem;

class Costs {
 public:
  explicit Costs(Workplace& work) : work_(work) {}

  void add(const ExperimentMerge& merge) {
    add_stage(work_.in(layout::merged_model(merge.name)));
    if (merge.sweep) {
      add_sweep(merge);
    }
    for (const std::string& direction : merge.directions) {
      add(*std::ranges::find(
          work_.experiment.merges, direction, &ExperimentMerge::name));
    }
    const Recipe recipe = resolve_recipe(work_, merge.name, merge.recipe);
    add_statistics(recipe.base_fisher);
    add_statistics(recipe.base_gram);
    for (const RecipeModel& model : recipe.models) {
      add_statistics(model.fisher);
      add_statistics(model.gram);
    }
    add_subspace(recipe.subspace);
  }

  MergeCost total() const {
    MergeCost cost = cost_;
    cost.examples += validation_examples_;
    for (const auto& [model, examples] : training_examples_) {
      cost.examples += examples;
    }
    return cost;
  }

 private:
  // Returns false for a stage that is counted already.
  bool add_stage(const fs::path& output) {
    const StageRecord& stage = work_.runner.record_of(output);
    const bool is_new = counted_.insert(stage.name).second;
    cost_.seconds += is_new ? stage.seconds : 0;
    return is_new;
  }

  void add_sweep(const ExperimentMerge& merge) {
    for (const double value : merge.sweep->values) {
      const fs::path file =
          work_.in(layout::sweep(merge.name, fmt::format("{}.json", value)));
      add_stage(file);
      validation_examples_ = 0; // each value has the same examples
      for (const EvalResult& set : read_results(work_, file)) {
        validation_examples_ += set.examples;
      }
    }
  }

  // A Fisher or Gram matrices.
  void add_statistics(const std::optional<fs::path>& path) {
    if (!path || !add_stage(*path)) {
      return;
    }
    cost_.bytes += fs::file_size(*path);
    const auto metadata =
        FisherMetadata::parse(Checkpoint(*path).metadata(), *path);
    add_examples(metadata->base_model_hash, metadata->num_examples_used);
    if (metadata->scale) { // a calibrated copy
      add_stage(work_.in(layout::kAverage));
      add_stage(work_.in(layout::fisher(path->stem())));
    }
  }

  void add_subspace(const std::optional<fs::path>& path) {
    if (!path || !add_stage(*path)) {
      return;
    }
    cost_.bytes += fs::file_size(*path);
    const auto subspace = SubspaceFisher::load(Checkpoint(*path));
    const auto add_loss = [&](const SubspaceFisher::Loss& loss) {
      add_examples(
          loss.model_hash,
          std::accumulate(loss.counts.begin(), loss.counts.end(), int64_t{0}));
    };
    add_loss(subspace.base);
    std::ranges::for_each(subspace.experts, add_loss);
  }

  // Every statistic of a model takes the same draw of its examples.
  void add_examples(const std::string& model, int64_t examples) {
    int64_t& most = training_examples_[model];
    most = std::max(most, examples);
  }

  Workplace& work_;
  MergeCost cost_;
  std::set<std::string> counted_; // names of stages
  std::map<std::string, int64_t> training_examples_; // by content hash
  int64_t validation_examples_ = 0;
};

} // namespace

MergeCost cost_of(Workplace& work, const ExperimentMerge& merge) {
  Costs costs(work);
  costs.add(merge);
  return costs.total();
}

} // namespace merganser
