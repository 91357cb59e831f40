#include "merganser/train/fingerprint.h"

#include <nlohmann/json.hpp>

#include "merganser/base/json_text.h"
#include "merganser/io/hash.h"
#include "merganser/io/model_dir.h"

namespace merganser {
namespace {

using Json = nlohmann::ordered_json;

std::string hash_model_dir(const std::filesystem::path& path) {
  const ModelDir folder(path);
  Hasher hasher;
  hasher.update(folder.config_text());
  for (const std::filesystem::path& file : folder.companions()) {
    hasher.update(file.string());
    hasher.update(hash_file(path / file));
  }
  return hasher.digest();
}

Json hash_files(const std::vector<std::filesystem::path>& files) {
  Json hashes = Json::array();
  for (const std::filesystem::path& file : files) {
    hashes.push_back(hash_file(file));
  }
  return hashes;
}

// Incremented whenever the same options give other bits: another order of the
// examples, other dropout masks, another hash of the weights in a Fisher file,
// second texts that used to be left out, another online_mc.
constexpr int kFormat = 5;

} // namespace

// Leaves out fisher_storage, which changes no step of the training.
std::string fingerprint(
    const TrainOptions& options,
    const std::string& weights_hash) {
  Json json = {
      {"format", kFormat},
      {"model", weights_hash},
      {"model's config.json and companions", hash_model_dir(options.model)},
      {"train", hash_files(options.train)},
      {"eval", hash_files(options.eval)},
      {"epochs", options.epochs},
      {"max-steps", options.max_steps},
      {"lr", options.learning_rate},
      {"batch-size", options.batch_size},
      {"accumulate", options.accumulate},
      {"max-length", options.max_length},
      {"num-labels", options.num_labels},
      {"seed", options.seed},
      {"dtype", options.bfloat16 ? "bfloat16" : "float32"},
      {"scheduler", schedule_name(options.schedule)},
      {"warmup", options.warmup},
      {"weight-decay", options.weight_decay},
      {"beta1", options.beta1},
      {"beta2", options.beta2},
      {"epsilon", options.epsilon},
      {"clip", options.clip},
      {"dropout", nullptr},
      {"linearized", options.linearized},
      {"fisher", training_fisher_name(options.fisher)},
      {"fisher-interval", options.fisher_interval},
      {"proximal", hash_files(options.proximal)},
      {"proximal-weight", options.proximal_weight}};
  if (options.dropout) {
    json["dropout"] = *options.dropout;
  }
  return json_text(json);
}

} // namespace merganser
