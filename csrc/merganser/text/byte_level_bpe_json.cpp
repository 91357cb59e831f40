#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "merganser/base/error.h"
#include "merganser/base/json_text.h"
#include "merganser/base/quote.h"
#include "merganser/text/byte_level_bpe.h"
#include "merganser/text/tokenizer_json_parts.h"

namespace merganser::tokenizer_json {
namespace {

// A merge is a line "left right", as in merges.txt, or a pair.
std::pair<std::string, std::string> read_merge(const json& merge) {
  if (!merge.is_string()) {
    return {merge.at(0), merge.at(1)};
  }
  const std::string line = merge;
  const size_t space = line.find(' ');
  if (space == std::string::npos || space != line.rfind(' ')) {
    throw InputError(fmt::format(
        "the merge {} is not two tokens with a space between them",
        quote(line)));
  }
  return {line.substr(0, space), line.substr(space + 1)};
}

MergeTable read_merges(const json& merges, const Vocabulary& vocabulary) {
  MergeTable table(merges.size());
  uint32_t rank = 0;
  for (const json& merge : merges) {
    if (merge.is_string() &&
        merge.get_ref<const std::string&>().starts_with("#version")) {
      continue;
    }
    const auto [left, right] = read_merge(merge);
    table.add(
        find_id(vocabulary, left),
        find_id(vocabulary, right),
        {rank++, find_id(vocabulary, left + right)});
  }
  return table;
}

} // namespace

std::unique_ptr<SubwordModel> read_byte_level_bpe(
    const json& tokenizer,
    const Vocabulary& vocabulary) {
  const json& normalizer = get(tokenizer, "normalizer");
  if (!normalizer.is_null()) {
    refuse("normalizer", type_of(normalizer), "with BPE use none");
  }
  const json& words = get(tokenizer, "pre_tokenizer");
  if (type_of(words) != "ByteLevel") {
    refuse("pre_tokenizer", type_of(words), "with BPE use ByteLevel");
  }
  if (!words.value("use_regex", true)) {
    refuse("pre_tokenizer", "ByteLevel without use_regex", "set use_regex");
  }
  const json& model = tokenizer.at("model");
  for (const char* key :
       {"dropout",
        "continuing_subword_prefix",
        "end_of_word_suffix",
        "byte_fallback",
        "ignore_merges"}) {
    const json& value = get(model, key);
    if (!value.is_null() && value != "" && value != 0 && value != false) {
      refuse(
          fmt::format("{} of BPE", key),
          json_text(value),
          "use a model without it");
    }
  }
  const json& unknown = get(model, "unk_token");
  return std::make_unique<ByteLevelBpe>(
      vocabulary,
      read_merges(model.at("merges"), vocabulary),
      ByteLevelBpe::Options{
          words.at("add_prefix_space"),
          unknown.is_null()
              ? std::nullopt
              : std::optional(find_id(vocabulary, unknown.get<std::string>())),
          model.value("fuse_unk", false)});
}

} // namespace merganser::tokenizer_json
