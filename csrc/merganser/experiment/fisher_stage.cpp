#include <algorithm>
#include <cstdint>

#include "merganser/experiment/layout.h"
#include "merganser/experiment/stages.h"
#include "merganser/fisher/fisher.h"
#include "merganser/fisher/gram.h"
#include "merganser/io/checkpoint.h"
#include "merganser/model/classifier.h"
#include "merganser/train/task.h"

namespace merganser {
namespace {

namespace fs = std::filesystem;

// A model and its training data.
class Estimation {
 public:
  Estimation(
      Workplace& work,
      const std::string& path,
      const std::vector<size_t>& data)
      : model_(work.in(path)), max_length_(work.experiment.max_length) {
    Json hashes = Json::array();
    for (const size_t i : data) {
      files_.push_back(work.data[i].train);
      hashes.push_back(work.runner.hash(files_.back()));
    }
    inputs_ = {
        {"model", work.runner.hash(model_)},
        {"data", hashes},
        {"max_length", max_length_}};
  }

  // Inputs of the stage; `options` are further ones.
  Json inputs(const Json& options) const {
    Json all = inputs_;
    all.update(options);
    return all;
  }

  // The examples of all sets, `limit` per set.
  int64_t limit_of_all(int64_t limit) const {
    const int64_t sets = std::ssize(files_);
    return limit > 0 ? std::min(limit, INT64_MAX / sets) * sets : limit;
  }

  // Writes the result of `estimate`.
  template <typename Options, typename Result>
  void write(
      const fs::path& file,
      Result (*estimate)(
          Encoder&,
          const Dataset&,
          int32_t,
          const Options&,
          const ProgressCallback&),
      const Options& options,
      const ProgressCallback& progress) const {
    Classifier classifier(model_);
    Dataset examples;
    for (const fs::path& part : files_) {
      append(examples, classifier.load(part, max_length_));
    }
    Result result = estimate(
        classifier.encoder,
        examples,
        classifier.tokenizer->pad_id(),
        options,
        progress);
    result.model_hash = Checkpoint(model_).content_hash();
    fs::create_directories(file.parent_path());
    result.save(file);
  }

 private:
  fs::path model_;
  int64_t max_length_;
  std::vector<fs::path> files_;
  Json inputs_;
};

} // namespace

void estimate_model_fisher(
    Workplace& work,
    const std::string& name,
    const std::string& path,
    const std::vector<size_t>& data) {
  const Estimation estimation(work, path, data);
  const fs::path file = work.in(layout::fisher(name));
  FisherOptions options = work.experiment.fisher;
  options.limit = estimation.limit_of_all(options.limit);
  work.runner.run(
      {.name = "fisher " + name,
       .unit = "examples",
       .inputs = estimation.inputs(
           {{"estimator", estimator_name(options.estimator)},
            {"samples", options.samples},
            {"limit", options.limit},
            {"seed", options.seed},
            {"batch_size", options.batch_size},
            {"bfloat16", options.bfloat16}}),
       .outputs = {file},
       .work = [&](const ProgressCallback& progress) {
         estimation.write(file, estimate_fisher, options, progress);
       }});
}

void estimate_model_gram(
    Workplace& work,
    const std::string& name,
    const std::string& path,
    const std::vector<size_t>& data) {
  const Estimation estimation(work, path, data);
  const fs::path file = work.in(layout::gram(name));
  const FisherOptions& fisher = work.experiment.fisher;
  const GramOptions options{
      .limit = estimation.limit_of_all(fisher.limit),
      .seed = fisher.seed,
      .batch_size = fisher.batch_size,
      .bfloat16 = fisher.bfloat16};
  work.runner.run(
      {.name = "gram " + name,
       .unit = "examples",
       .inputs = estimation.inputs(
           {{"limit", options.limit},
            {"seed", options.seed},
            {"batch_size", options.batch_size},
            {"bfloat16", options.bfloat16}}),
       .outputs = {file},
       .work = [&](const ProgressCallback& progress) {
         estimation.write(file, estimate_gram, options, progress);
       }});
}

} // namespace merganser
