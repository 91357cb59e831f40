#include "merganser/train/task.h"

#include "merganser/io/checkpoint.h"
#include "merganser/model/classifier.h"
#include "merganser/text/tokenizer.h"

namespace merganser {

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
