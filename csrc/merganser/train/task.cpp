#include "merganser/train/task.h"

#include <algorithm>

#include "merganser/io/checkpoint.h"
#include "merganser/model/classifier.h"
#include "merganser/text/tokenizer.h"

namespace merganser {

void append(Dataset& all, Dataset part) {
  if (!all.token_types.empty() || !part.token_types.empty()) {
    all.token_types.resize(all.ids.size());
    part.token_types.resize(part.ids.size());
    std::ranges::move(part.token_types, std::back_inserter(all.token_types));
  }
  std::move(part.ids.begin(), part.ids.end(), std::back_inserter(all.ids));
  all.labels.insert(all.labels.end(), part.labels.begin(), part.labels.end());
}

TrainingTask load_task(const TrainOptions& options) {
  TrainingTask task;
  LoadedEncoder loaded = load_encoder(
      options.model, options.num_labels, options.seed, options.dropout);
  task.model = std::move(loaded.model);
  task.new_parameters = std::move(loaded.fresh);
  const EncoderConfig& config = task.model->config();
  check_options(options, config);
  task.model_hash = Checkpoint(options.model).content_hash();

  const auto tokenizer = Tokenizer::load(options.model);
  check_vocabulary(*tokenizer, config, options.model);
  task.pad_id = tokenizer->pad_id();
  const auto load = [&](const std::filesystem::path& file) {
    return load_data(file, *tokenizer, config, options.max_length);
  };
  for (const std::filesystem::path& file : options.train) {
    append(task.train, load(file));
  }
  for (const std::filesystem::path& file : options.eval) {
    task.eval.push_back(load(file));
  }
  return task;
}

} // namespace merganser
