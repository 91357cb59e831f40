#include "merganser/plan/check_configs.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "merganser/base/json_text.h"
#include "merganser/io/atomic_file.h"

namespace merganser {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// Keys that give tensors their meaning. A key that one of the two files lacks
// has its default value there and is not compared.
constexpr std::string_view kConfigKeys[] = {
    "model_type",
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "intermediate_size",
    "hidden_act",
    "max_position_embeddings",
    "type_vocab_size",
    "position_embedding_type",
    "layer_norm_eps",
    "rms_norm_eps",
    "pad_token_id",
};

json parse_object(const std::string& text, const fs::path& file) {
  json value = parse_sorted_json_or_discard(text);
  if (!value.is_object()) {
    throw InputError(fmt::format("{}: expected a JSON object", file.string()));
  }
  return value;
}

int64_t num_labels(const json& config) {
  if (config.contains("id2label") && config["id2label"].is_object()) {
    return static_cast<int64_t>(config["id2label"].size());
  }
  return config.contains("num_labels") &&
          config["num_labels"].is_number_integer()
      ? config["num_labels"].get<int64_t>()
      : 2; // transformers' default
}

// True if classes have names other than transformers' defaults, which do not
// identify a class.
bool has_class_names(const json& config) {
  if (!config.contains("id2label") || !config["id2label"].is_object()) {
    return false;
  }
  for (const auto& name : config["id2label"]) {
    if (name.is_string() &&
        !name.get_ref<const std::string&>().starts_with("LABEL_")) {
      return true;
    }
  }
  return false;
}

// Contents of tokenizer.json that turn text into ids: without the truncation
// and padding of its last use.
json vocabulary(const fs::path& tokenizer_json) {
  json value = parse_object(read_file(tokenizer_json), tokenizer_json);
  value.erase("truncation");
  value.erase("padding");
  value.erase("version");
  return value;
}

bool same_tokenizer_file(const fs::path& a, const fs::path& b) {
  return read_file(a) == read_file(b) ||
      (a.filename() == "tokenizer.json" && vocabulary(a) == vocabulary(b));
}

constexpr const char* kVocabularies[] = {
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "added_tokens.json"};

} // namespace

void check_configs(
    const ModelDir& model,
    const ModelDir& reference,
    bool skip_heads,
    bool any_depth,
    Problems& problems) {
  const fs::path here = model.path() / "config.json";
  const fs::path there = reference.path() / "config.json";
  const json config = parse_object(model.config_text(), here);
  const json expected = parse_object(reference.config_text(), there);
  const auto differ = [&](std::string_view key, const json& a, const json& b) {
    problems.add(fmt::format(
        "{} has {} {}, but {} has {}; models must be fine-tuned from the same "
        "base",
        here.string(),
        key,
        json_text(a),
        there.string(),
        json_text(b)));
  };
  for (const std::string_view key : kConfigKeys) {
    if (any_depth && key == "num_hidden_layers") {
      continue;
    }
    if (config.contains(key) && expected.contains(key) &&
        config[key] != expected[key]) {
      differ(key, config[key], expected[key]);
    }
  }
  if (!skip_heads) {
    if (num_labels(config) != num_labels(expected)) {
      differ("num_labels", num_labels(config), num_labels(expected));
    } else if (
        has_class_names(config) && has_class_names(expected) &&
        config["id2label"] != expected["id2label"]) {
      differ("id2label", config["id2label"], expected["id2label"]);
    }
  }
  for (const char* name : kVocabularies) {
    const fs::path a = model.path() / name;
    const fs::path b = reference.path() / name;
    if (fs::exists(a) && fs::exists(b) && !same_tokenizer_file(a, b)) {
      problems.add(fmt::format(
          "{} and {} contain different vocabularies, in which an id stands for "
          "different tokens",
          a.string(),
          b.string()));
    }
  }
}

} // namespace merganser
