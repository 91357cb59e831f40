#include "merganser/plan/check_configs.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "merganser/base/json_text.h"
#include "merganser/io/atomic_file.h"
#include "merganser/plan/vocabularies.h"

namespace merganser {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// Keys that give tensors their meaning. A key that one of the two files lacks
// or has as null has its default value there and is not compared.
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

// Names of files that say how the weights of a model were quantized.
constexpr const char* kQuantization[] = {
    "quantize_config.json",
    "quant_config.json",
    "hf_quant_config.json"};

[[noreturn]] void refuse_quantized(
    const fs::path& file,
    const std::string& what) {
  throw InputError(fmt::format(
      "{}: {}, but quantized weights cannot be merged; merge the models before "
      "their quantization, or dequantize them (model.dequantize() of "
      "transformers)",
      file.string(),
      what));
}

// Compares vocabularies, and weights outside the merge: those of the modules of
// sentence-transformers, which are copied.
void check_companions(
    const ModelDir& model,
    const ModelDir& reference,
    Problems& problems) {
  for (const fs::path& file : reference.companions()) {
    const fs::path a = model.path() / file;
    const fs::path b = reference.path() / file;
    if (!fs::exists(a)) {
      continue;
    }
    if (is_vocabulary(file) && !same_vocabulary(a, b)) {
      problems.add(fmt::format(
          "{} and {} contain different vocabularies, in which an id stands for "
          "different tokens",
          a.string(),
          b.string()));
    } else if (is_weights_file(file) && read_file(a) != read_file(b)) {
      problems.add(fmt::format(
          "{} and {} differ, but weights of these modules are not merged; copy "
          "one over the other",
          a.string(),
          b.string()));
    }
  }
}

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
    const json value = config.value(key, json());
    const json other = expected.value(key, json());
    if (!value.is_null() && !other.is_null() && value != other) {
      differ(key, value, other);
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
  check_companions(model, reference, problems);
}

void check_not_quantized(const ModelDir& model) {
  const fs::path file = model.path() / "config.json";
  const json config = parse_sorted_json_or_discard(model.config_text());
  const auto check = [&](const json& part) {
    for (const char* key : {"quantization_config", "compression_config"}) {
      if (part.is_object() && part.contains(key) && !part[key].is_null()) {
        refuse_quantized(file, fmt::format("has {}", key));
      }
    }
  };
  check(config);
  if (config.is_object() && config.contains("text_config")) {
    check(config["text_config"]);
  }
  for (const char* name : kQuantization) {
    if (fs::exists(model.path() / name)) {
      refuse_quantized(model.path(), fmt::format("has {}", name));
    }
  }
}

void note_differences(
    const ModelDir& model,
    const ModelDir& reference,
    std::vector<std::string>& notes) {
  for (const fs::path& file : reference.companions()) {
    const fs::path other = model.path() / file;
    const bool noted = file.extension() == ".py" ||
        file.extension() == ".jinja" ||
        file.string().ends_with("processor_config.json");
    if (noted && fs::exists(other) &&
        read_file(other) != read_file(reference.path() / file)) {
      notes.push_back(fmt::format(
          "{} differs from {}, which the output gets",
          other.string(),
          (reference.path() / file).string()));
    }
  }
}

} // namespace merganser
