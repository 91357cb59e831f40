#include "merganser/plan/vocabularies.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "merganser/base/error.h"
#include "merganser/base/json_text.h"
#include "merganser/io/atomic_file.h"

namespace merganser {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// Merges are written as "a b" or, since tokenizers 0.20, as ["a", "b"].
void join_merges(json& merges) {
  for (json& merge : merges) {
    if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
        merge[1].is_string()) {
      merge = merge[0].get<std::string>() + " " + merge[1].get<std::string>();
    }
  }
}

// Removes settings of a model that have their defaults, which older versions
// do not write.
void remove_defaults(json& model) {
  for (const char* key :
       {"dropout",
        "unk_token",
        "continuing_subword_prefix",
        "end_of_word_suffix",
        "fuse_unk",
        "byte_fallback",
        "ignore_merges"}) {
    const auto found = model.find(key);
    if (found != model.end() &&
        (found->is_null() || *found == false || *found == "")) {
      model.erase(found);
    }
  }
}

// The same for the steps before and after the model, which can be nested.
void unify_steps(json& value) {
  for (auto& item : value) {
    if (item.is_structured()) {
      unify_steps(item);
    }
  }
  if (!value.is_object() || !value.contains("type")) {
    return;
  }
  if (value["type"] == "ByteLevel" &&
      value.value("use_regex", json()) == true) {
    value.erase("use_regex");
  } else if (value["type"] == "Metaspace") {
    const json added = value.value("add_prefix_space", json());
    if (added.is_boolean() && !value.contains("prepend_scheme")) {
      value["prepend_scheme"] = added.get<bool>() ? "always" : "never";
    }
    value.erase("add_prefix_space");
    value.erase("str_rep");
    if (value.value("split", json()) == true) {
      value.erase("split");
    }
  }
}

// Contents of a tokenizer.json that turn text into ids: without the truncation
// and padding of its last use.
json read_tokenizer(const fs::path& file) {
  json value = parse_sorted_json_or_discard(read_file(file));
  if (!value.is_object()) {
    throw InputError(fmt::format("{}: expected a JSON object", file.string()));
  }
  for (const char* key : {"truncation", "padding", "version"}) {
    value.erase(key);
  }
  if (value.contains("model") && value["model"].is_object()) {
    json& model = value["model"];
    if (model.contains("merges") && model["merges"].is_array()) {
      join_merges(model["merges"]);
    }
    remove_defaults(model);
  }
  for (const char* key :
       {"normalizer", "pre_tokenizer", "post_processor", "decoder"}) {
    if (value.contains(key) && value[key].is_structured()) {
      unify_steps(value[key]);
    }
  }
  return value;
}

// Lines without their breaks and without the comment that begins merges.txt.
std::vector<std::string> read_lines(const std::string& text) {
  std::vector<std::string> lines;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    lines.push_back(text.substr(begin, end - begin));
    if (lines.back().ends_with('\r')) {
      lines.back().pop_back();
    }
    begin = end + 1;
  }
  if (!lines.empty() && lines.front().starts_with("#version")) {
    lines.erase(lines.begin());
  }
  return lines;
}

} // namespace

bool is_vocabulary(const fs::path& file) {
  const std::string name = file.filename().string();
  const std::string ending = file.extension().string();
  const auto in = [](const std::string& text, const auto&... names) {
    return ((text == names) || ...);
  };
  return in(name,
            "tokenizer.json",
            "added_tokens.json",
            "merges.txt",
            "dict.txt",
            "tekken.json") ||
      // tokenizer.model.v3 of Mistral
      name.find(".model.v") != std::string::npos ||
      in(ending,
         ".model",
         ".spm",
         ".codes",
         ".bpe",
         ".tiktoken",
         ".tokenizer",
         ".vocab") ||
      (in(ending, ".json", ".txt") && name.find("vocab") != std::string::npos);
}

bool same_vocabulary(const fs::path& a, const fs::path& b) {
  const std::string x = read_file(a);
  const std::string y = read_file(b);
  if (x == y) {
    return true;
  }
  if (a.filename() == "tokenizer.json") {
    return read_tokenizer(a) == read_tokenizer(b);
  }
  if (a.extension() == ".json") {
    const json p = parse_sorted_json_or_discard(x);
    const json q = parse_sorted_json_or_discard(y);
    return !p.is_discarded() && p == q;
  }
  return a.extension() == ".txt" && read_lines(x) == read_lines(y);
}

} // namespace merganser
