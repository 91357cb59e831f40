#include "merganser/plan/check_configs.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include <nlohmann/json.hpp>

#include "merganser/base/json_text.h"
#include "merganser/base/quote.h"
#include "merganser/io/atomic_file.h"
#include "merganser/plan/check_modules.h"
#include "merganser/plan/compare_configs.h"
#include "merganser/plan/vocabularies.h"

namespace merganser {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

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

// Checks a configuration and those inside it (text_config, decoder).
void check_not_quantized(
    const json& config,
    const std::string& prefix,
    const fs::path& file) {
  for (const auto& [key, value] : config.items()) {
    if (!value.is_object()) {
      continue;
    }
    if (key == "quantization_config" || key == "compression_config") {
      refuse_quantized(file, fmt::format("has {}{}", prefix, key));
    }
    check_not_quantized(value, prefix + key + ".", file);
  }
}

// Compares vocabularies, and weights outside the merge: those of modules of
// sentence-transformers in other formats, and of modules inside a module.
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
          "{} and {} differ, but only model.safetensors of a module is merged; "
          "save the module as safetensors, or copy one file over the other",
          a.string(),
          b.string()));
    }
  }
}

// Settings that versions of transformers write differently.
bool is_settings_file(const fs::path& file) {
  return file == "tokenizer_config.json" || file == "special_tokens_map.json" ||
      file == "generation_config.json";
}

// Code, templates, and settings of processors and modules.
bool may_change_outputs(const fs::path& file) {
  const fs::path ending = file.extension();
  return ending == ".py" || ending == ".jinja" || ending == ".json";
}

bool same_contents(const fs::path& a, const fs::path& b) {
  const std::string x = read_file(a);
  const std::string y = read_file(b);
  if (x == y || a.extension() != ".json") {
    return x == y;
  }
  const json p = parse_sorted_json_or_discard(x);
  return !p.is_discarded() && p == parse_sorted_json_or_discard(y);
}

// A token is its text, or an object with the text and settings.
json text_of_token(const json& value) {
  return value.is_object() ? value.value("content", value) : value;
}

// Keys in which two files with settings differ. A key that one of them lacks
// has its default there, but a template that one lacks is a difference.
std::vector<std::string> differing_settings(
    const fs::path& a,
    const fs::path& b) {
  constexpr std::string_view kOfTheVersion[] = {
      "_from_model_config",
      "added_tokens_decoder", // with tokenizer.json
      "auto_map",
      "backend",
      "is_local",
      "name_or_path",
      "processor_class",
      "special_tokens_map_file",
      "tokenizer_class",
      "tokenizer_file",
      "transformers_version"};
  const json ours = parse_object(read_file(a), a);
  const json theirs = parse_object(read_file(b), b);
  std::vector<std::string> keys;
  if (ours.contains("chat_template") != theirs.contains("chat_template")) {
    keys.push_back("chat_template");
  }
  for (const auto& [key, value] : ours.items()) {
    if (theirs.contains(key) &&
        std::ranges::find(kOfTheVersion, key) == std::end(kOfTheVersion) &&
        text_of_token(value) != text_of_token(theirs[key])) {
      keys.push_back(key);
    }
  }
  return keys;
}

void note_values(
    const ModelDir& model,
    const ModelDir& reference,
    bool any_depth,
    std::vector<std::string>& notes) {
  const std::string here = (model.path() / "config.json").string();
  const std::string used = fmt::format(
      "{}, which the output gets,",
      (reference.path() / "config.json").string());
  std::vector<std::string> only_here, only_there;
  for (const ConfigDifference& d : compare_configs(
           parse_sorted_json_or_discard(model.config_text()),
           parse_sorted_json_or_discard(reference.config_text()),
           any_depth)) {
    if (d.other_value.is_discarded()) {
      only_here.push_back(d.key + " " + json_text(d.value));
    } else if (d.value.is_discarded()) {
      only_there.push_back(d.key + " " + json_text(d.other_value));
    } else if (!d.refused) {
      notes.push_back(fmt::format(
          "{} has {} {}, but {} has {}",
          here,
          d.key,
          json_text(d.value),
          used,
          json_text(d.other_value)));
    }
  }
  const auto note_defaults = [&](const std::string& has,
                                 const std::vector<std::string>& values,
                                 const std::string& lacks) {
    if (!values.empty()) {
      notes.push_back(fmt::format(
          "{} has {}, but {} has the architecture's defaults",
          has,
          list_some(values),
          lacks));
    }
  };
  note_defaults(here, only_here, used);
  note_defaults(used, only_there, here);
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
  for (const ConfigDifference& d :
       compare_configs(config, expected, any_depth)) {
    if (d.refused) {
      differ(d.key, d.value, d.other_value);
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
  check_modules(model, reference, problems);
  check_companions(model, reference, problems);
}

void check_not_quantized(const ModelDir& model) {
  const fs::path file = model.path() / "config.json";
  const json config = parse_sorted_json_or_discard(model.config_text());
  check_not_quantized(config, "", file);
  for (const char* name : kQuantization) {
    if (fs::exists(model.path() / name)) {
      refuse_quantized(model.path(), fmt::format("has {}", name));
    }
  }
}

void note_differences(
    const ModelDir& model,
    const ModelDir& reference,
    bool any_depth,
    std::vector<std::string>& notes) {
  note_values(model, reference, any_depth, notes);
  const std::vector<fs::path> files = reference.companions();
  std::vector<std::string> left_out;
  for (const fs::path& file : model.companions()) {
    const fs::path ours = model.path() / file;
    const fs::path theirs = reference.path() / file;
    const bool is_other = may_change_outputs(file);
    if (std::ranges::find(files, file) == files.end()) {
      if (is_other || is_vocabulary(file)) {
        left_out.push_back(quote(file.string()));
      }
    } else if (is_settings_file(file)) {
      const std::vector<std::string> keys = differing_settings(ours, theirs);
      if (!keys.empty()) {
        notes.push_back(fmt::format(
            "{} differs from {}, which the output gets, in {}",
            ours.string(),
            theirs.string(),
            fmt::join(keys, ", ")));
      }
    } else if (
        is_other && !is_vocabulary(file) && !same_contents(ours, theirs)) {
      notes.push_back(fmt::format(
          "{} differs from {}, which the output gets",
          ours.string(),
          theirs.string()));
    }
  }
  if (!left_out.empty()) {
    notes.push_back(fmt::format(
        "{} has files that {} lacks, so that the output lacks them: {}",
        model.path().string(),
        reference.path().string(),
        fmt::join(left_out, ", ")));
  }
}

} // namespace merganser
