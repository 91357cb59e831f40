#include "merganser/text/vocabulary_files.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <string>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "merganser/base/error.h"
#include "merganser/base/quote.h"
#include "merganser/base/utf8.h"
#include "merganser/io/atomic_file.h"
#include "merganser/text/tokenizer_config.h"
#include "merganser/text/unicode.h"

namespace merganser {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

// Vocabularies of XLM-R, ALBERT, DeBERTa, T5 and BERTweet. BERTweet's vocab.txt
// is not WordPiece.
constexpr const char* kOtherVocabularies[] = {
    "sentencepiece.bpe.model",
    "spiece.model",
    "spm.model",
    "tokenizer.model",
    "bpe.codes"};

// Order in which transformers adds those that a vocabulary lacks.
constexpr const char* kSpecialTokens[] = {
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token"};

// The added tokens of a tokenizer_config.json, as transformers writes them to a
// tokenizer.json.
class AddedTokenList {
 public:
  // The special tokens of a tokenizer class, such as "cls_token": "[CLS]".
  using Defaults = std::map<std::string, std::string>;

  AddedTokenList(
      const json& config,
      const json& vocabulary,
      const Defaults& defaults);

  const json& tokens() const {
    return tokens_;
  }

  // The text and the id of a listed token, in the form of BertProcessing and
  // RobertaProcessing.
  json named(const std::string& content) const;

 private:
  void add(const json& token, bool normalized);

  const json& vocabulary_;
  int64_t next_;
  json tokens_ = json::array();
  std::map<std::string, json> ids_;
};

AddedTokenList::AddedTokenList(
    const json& config,
    const json& vocabulary,
    const Defaults& defaults)
    : vocabulary_(vocabulary), next_(static_cast<int64_t>(vocabulary.size())) {
  std::map<int64_t, json> listed; // by id
  const json decoder = config.value("added_tokens_decoder", json::object());
  for (const auto& [id, token] : decoder.items()) {
    listed[std::strtoll(id.c_str(), nullptr, 10)] = token;
  }
  for (const auto& [id, token] : listed) {
    add(token, true);
  }
  for (const char* key : kSpecialTokens) {
    const auto fallback = defaults.find(key);
    const auto given = config.find(key);
    if (given != config.end() && !given->is_null()) {
      add(*given, false);
    } else if (fallback != defaults.end()) {
      add(fallback->second, false);
    }
  }
  for (const char* key :
       {"additional_special_tokens", "extra_special_tokens"}) {
    for (const json& token : config.value(key, json::array())) {
      add(token, false);
    }
  }
}

// `token` is a string or an object with flags. The first of equal tokens wins.
void AddedTokenList::add(const json& token, bool normalized) {
  json entry = {
      {"single_word", false},
      {"lstrip", false},
      {"rstrip", false},
      {"normalized", normalized}};
  if (token.is_object()) {
    entry.update(token);
  } else {
    entry["content"] = token;
  }
  const std::string content = entry.at("content");
  if (ids_.contains(content)) {
    return;
  }
  const auto known = vocabulary_.find(content);
  ids_[content] = known != vocabulary_.end() ? *known : json(next_++);
  entry["id"] = ids_[content];
  tokens_.push_back(std::move(entry));
}

json AddedTokenList::named(const std::string& content) const {
  return {content, ids_.at(content)};
}

const AddedTokenList::Defaults kBert = {
    {"unk_token", "[UNK]"},
    {"sep_token", "[SEP]"},
    {"pad_token", "[PAD]"},
    {"cls_token", "[CLS]"},
    {"mask_token", "[MASK]"}};

const AddedTokenList::Defaults kRoberta = {
    {"bos_token", "<s>"},
    {"eos_token", "</s>"},
    {"unk_token", "<unk>"},
    {"sep_token", "</s>"},
    {"pad_token", "<pad>"},
    {"cls_token", "<s>"},
    {"mask_token", "<mask>"}};

// Visits the lines of a text without their ends; nothing after the last end.
template <typename Visit>
void for_each_line(std::string_view text, const Visit& visit) {
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.ends_with('\r')) {
      line.remove_suffix(1);
    }
    visit(line);
  }
}

void check_class(const json& config, const std::string& expected) {
  const std::string name = config.value("tokenizer_class", expected);
  if (name != expected && name != expected + "Fast") {
    throw InputError(fmt::format(
        "tokenizer_config.json: tokenizer_class {} is not supported; expected "
        "{}, or a tokenizer.json",
        quote(name),
        expected));
  }
}

// Reads one token per line; its id is the line number, from 0.
json read_vocab_txt(const fs::path& path) {
  const std::string text = read_file(path);
  if (find_ill_formed_utf8(text)) {
    throw InputError(fmt::format("{}: is not UTF-8", path.string()));
  }
  json vocabulary = json::object();
  int64_t id = 0;
  for_each_line(text, [&](std::string_view line) {
    vocabulary[std::string(unicode::trim_end(line))] = id++;
  });
  return vocabulary;
}

json read_merges_txt(const fs::path& path) {
  const std::string text = read_file(path);
  json merges = json::array();
  for_each_line(text, [&](std::string_view line) { merges.push_back(line); });
  return merges;
}

json bert(const fs::path& folder, const json& config) {
  check_class(config, "BertTokenizer");
  json vocabulary = read_vocab_txt(folder / "vocab.txt");
  const AddedTokenList added(config, vocabulary, kBert);
  const auto name = [&](const char* key) {
    return special_token(config, key, kBert.at(key));
  };
  return {
      {"added_tokens", added.tokens()},
      {"normalizer",
       {{"type", "BertNormalizer"},
        {"clean_text", true},
        {"handle_chinese_chars", config.value("tokenize_chinese_chars", true)},
        {"strip_accents", config.value("strip_accents", json())},
        {"lowercase", config.value("do_lower_case", true)}}},
      {"pre_tokenizer", {{"type", "BertPreTokenizer"}}},
      {"post_processor",
       {{"type", "BertProcessing"},
        {"cls", added.named(name("cls_token"))},
        {"sep", added.named(name("sep_token"))}}},
      {"model",
       {{"type", "WordPiece"},
        {"unk_token", name("unk_token")},
        {"continuing_subword_prefix", "##"},
        {"max_input_chars_per_word", 100},
        {"vocab", std::move(vocabulary)}}}};
}

json roberta(const fs::path& folder, const json& config) {
  check_class(config, "RobertaTokenizer");
  json vocabulary = read_json(folder / "vocab.json");
  const AddedTokenList added(config, vocabulary, kRoberta);
  const auto name = [&](const char* key) {
    return special_token(config, key, kRoberta.at(key));
  };
  return {
      {"added_tokens", added.tokens()},
      {"pre_tokenizer",
       {{"type", "ByteLevel"},
        {"add_prefix_space", config.value("add_prefix_space", false)}}},
      {"post_processor",
       {{"type", "RobertaProcessing"},
        {"cls", added.named(name("cls_token"))},
        {"sep", added.named(name("sep_token"))}}},
      {"model",
       {{"type", "BPE"},
        {"merges", read_merges_txt(folder / "merges.txt")},
        {"vocab", std::move(vocabulary)}}}};
}

} // namespace

json tokenizer_json_of_vocabulary(const fs::path& folder, const json& config) {
  for (const char* name : kOtherVocabularies) {
    if (fs::exists(folder / name)) {
      throw InputError(fmt::format(
          "{}: SentencePiece and fastBPE are not supported; expected "
          "tokenizer.json, vocab.txt, or vocab.json with merges.txt",
          (folder / name).string()));
    }
  }
  if (fs::exists(folder / "vocab.txt")) {
    return bert(folder, config);
  }
  if (fs::exists(folder / "vocab.json") && fs::exists(folder / "merges.txt")) {
    return roberta(folder, config);
  }
  throw InputError(fmt::format(
      "{}: has no tokenizer; expected tokenizer.json, vocab.txt, or vocab.json "
      "with merges.txt",
      folder.string()));
}

} // namespace merganser
