// Small cases computed by hand, threads, and errors of files, in addition to
// the comparison with the tokenizers package
// (tests/python/text/test_tokenizer.py). Also runs the hard texts under the
// sanitizers.

#include "merganser/text/tokenizer.h"

#include <fstream>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "merganser/base/error.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace merganser {
namespace {

using nlohmann::json;
using Ids = std::vector<int32_t>;

json wordpiece() {
  return json::parse(R"({
    "added_tokens": [
      {"id": 0, "content": "[PAD]", "single_word": false, "lstrip": false,
       "rstrip": false, "normalized": false, "special": true},
      {"id": 9, "content": "[new]", "single_word": false, "lstrip": true,
       "rstrip": false, "normalized": false, "special": false}],
    "normalizer": {"type": "BertNormalizer", "clean_text": true,
      "handle_chinese_chars": true, "strip_accents": null, "lowercase": true},
    "pre_tokenizer": {"type": "BertPreTokenizer"},
    "post_processor": {"type": "BertProcessing",
      "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
    "model": {"type": "WordPiece", "unk_token": "[UNK]",
      "continuing_subword_prefix": "##", "max_input_chars_per_word": 8,
      "vocab": {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "un": 4,
                "##aff": 5, "##able": 6, "!": 7, "##a": 8}}})");
}

// Bytes are tokens 4 to 8; merges by rank: "l l", "h e", "he ll", "hell o".
json byte_level() {
  return json::parse(R"({
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false},
    "post_processor": {"type": "RobertaProcessing",
      "sep": ["</s>", 2], "cls": ["<s>", 0]},
    "model": {"type": "BPE",
      "vocab": {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "h": 4, "e": 5,
                "l": 6, "o": 7, "Ġ": 8, "ll": 9, "he": 10, "hell": 11,
                "hello": 12},
      "merges": ["l l", ["h", "e"], "he ll", "hell o"]}})");
}

class TokenizerTest : public testing::Test {
 protected:
  std::unique_ptr<Tokenizer> load(const json& content) {
    std::ofstream(folder_ / "tokenizer.json") << content;
    return Tokenizer::load(folder_.path());
  }

  void expect_refused(
      const json& content,
      std::initializer_list<std::string> parts) {
    SCOPED_TRACE(*parts.begin());
    test::expect_error<InputError>([&] { load(content); }, {"tokenizer.json:"});
    test::expect_error<InputError>([&] { load(content); }, parts);
  }

  test::TemporaryFolder folder_;
};

TEST_F(TokenizerTest, WordPiece) {
  const auto tokenizer = load(wordpiece());
  EXPECT_EQ(tokenizer->encode("Unaffable!", 9), (Ids{2, 1, 7, 3})); // 9 letters
  EXPECT_EQ(tokenizer->encode("unaffa UN-", 9), (Ids{2, 4, 5, 8, 4, 1, 3}));
  EXPECT_EQ(tokenizer->encode("  [new][PAD]!", 9), (Ids{2, 9, 0, 7, 3}));
  EXPECT_EQ(tokenizer->encode("", 9), (Ids{2, 3}));
  EXPECT_EQ(tokenizer->encode("unaffa", 4), (Ids{2, 4, 5, 3}));
  EXPECT_EQ(tokenizer->pad_id(), 0);
  EXPECT_EQ(tokenizer->vocab_size(), 10);
}

TEST_F(TokenizerTest, ByteLevelBpe) {
  const auto tokenizer = load(byte_level());
  EXPECT_EQ(tokenizer->encode("hello hell", 9), (Ids{0, 12, 8, 11, 2}));
  EXPECT_EQ(
      tokenizer->encode("hhello  lll", 9), (Ids{0, 4, 12, 8, 8, 9, 6, 2}));
  EXPECT_EQ(tokenizer->encode("h?e", 9), (Ids{0, 4, 5, 2})); // "?" has no token
  EXPECT_EQ(tokenizer->pad_id(), 1);
  EXPECT_EQ(tokenizer->vocab_size(), 13);
}

TEST_F(TokenizerTest, SpecialTokensNeedRoom) {
  const auto tokenizer = load(wordpiece());
  EXPECT_EQ(tokenizer->encode("un un", 3), (Ids{2, 4, 3}));
  for (const int64_t max_length : {2, 0, -1}) {
    test::expect_error<InputError>(
        [&] { tokenizer->encode("un", max_length); },
        {"max_length " + std::to_string(max_length), "2 special tokens"});
  }
}

TEST_F(TokenizerTest, RefusesBytesThatAreNotUtf8) {
  for (const json& content : {wordpiece(), byte_level()}) {
    const auto tokenizer = load(content);
    test::expect_error<InputError>(
        [&] { tokenizer->encode("un\xFFun", 9); }, {"UTF-8", "byte 2"});
  }
}

std::vector<std::string> hard_texts() {
  std::ifstream file(MERGANSER_TESTS_DIR "/golden/hard_texts.jsonl");
  std::vector<std::string> texts;
  for (std::string line; std::getline(file, line);) {
    if (line.find("lone surrogate") == std::string::npos) {
      texts.push_back(json::parse(line).at("text"));
    }
  }
  return texts;
}

TEST_F(TokenizerTest, ThreadsMakeNoDifference) {
  std::vector<std::string> texts;
  for (int copy = 0; copy < 5; ++copy) {
    for (const std::string& text : hard_texts()) {
      texts.push_back(text + std::to_string(copy));
    }
  }
  ASSERT_GT(texts.size(), 900u);
  const std::vector<std::string_view> views(texts.begin(), texts.end());
  for (const json& content : {wordpiece(), byte_level()}) {
    const auto tokenizer = load(content);
    const auto alone = encode_batch(*tokenizer, views, 64, 1);
    for (size_t i = 0; i < texts.size(); ++i) {
      ASSERT_EQ(alone[i], tokenizer->encode(texts[i], 64));
      ASSERT_LE(alone[i].size(), 64u);
    }
    EXPECT_EQ(alone, encode_batch(*tokenizer, views, 64, 3));
    EXPECT_EQ(alone, encode_batch(*tokenizer, views, 64));
  }
}

// The words that a thread caches belong to one tokenizer.
TEST_F(TokenizerTest, TwoOfAKindDoNotMix) {
  json other = byte_level();
  other["model"]["merges"] = {"l l"};
  const auto first = load(byte_level());
  const auto second = load(other);
  for (int turn = 0; turn < 2; ++turn) {
    EXPECT_EQ(first->encode("hello", 9), (Ids{0, 12, 2}));
    EXPECT_EQ(second->encode("hello", 9), (Ids{0, 4, 5, 9, 7, 2}));
  }
}

TEST_F(TokenizerTest, FirstBadTextOfABatchIsReported) {
  const auto tokenizer = load(wordpiece());
  std::vector<std::string_view> texts(1000, "un");
  texts[300] = "u\xFF";
  texts[900] = "\xFF";
  for (const int threads : {1, 3}) {
    test::expect_error<InputError>(
        [&] { encode_batch(*tokenizer, texts, 9, threads); }, {"byte 1"});
  }
}

TEST_F(TokenizerTest, RefusesPartsByName) {
  const auto changed = [](json content, const char* at, const json& value) {
    content[json::json_pointer(at)] = value;
    return content;
  };
  const json bert = wordpiece();
  const json bpe = byte_level();
  expect_refused(changed(bert, "/model/type", "Unigram"), {"model 'Unigram'"});
  expect_refused(changed(bert, "/normalizer/type", "NFKC"), {"'NFKC'"});
  expect_refused(
      changed(bert, "/pre_tokenizer/type", "Metaspace"), {"'Metaspace'"});
  expect_refused(
      changed(bert, "/pre_tokenizer", nullptr), {"pre_tokenizer 'null'"});
  expect_refused(
      changed(bert, "/post_processor/type", "Sequence"), {"'Sequence'"});
  expect_refused(
      changed(bert, "/truncation", {{"direction", "Left"}}), {"'Left'"});
  expect_refused(changed(bert, "/model/unk_token", "[unk]"), {"'[unk]'"});
  expect_refused(changed(bert, "/model/vocab/un", -4), {"'un'", "'-4'"});
  expect_refused(changed(bert, "/model/vocab/un", 1u << 31), {"'un'"});
  expect_refused(changed(bert, "/model/vocab", "x"), {"id of"});
  expect_refused(changed(bert, "/added_tokens/1/id", 12), {"[new]", "12", "9"});
  expect_refused(changed(bert, "/normalizer/lowercase", "yes"), {"boolean"});
  expect_refused(changed(bpe, "/normalizer", {{"type", "NFC"}}), {"'NFC'"});
  expect_refused(changed(bpe, "/pre_tokenizer/type", "Split"), {"'Split'"});
  expect_refused(
      changed(bpe, "/pre_tokenizer/use_regex", false), {"use_regex"});
  expect_refused(changed(bpe, "/model/dropout", 0.1), {"dropout", "0.1"});
  expect_refused(
      changed(bpe, "/model/end_of_word_suffix", "</w>"),
      {"end_of_word_suffix"});
  expect_refused(changed(bpe, "/model/byte_fallback", true), {"byte_fallback"});
  expect_refused(changed(bpe, "/model/ignore_merges", true), {"ignore_merges"});
  expect_refused(changed(bpe, "/model/merges/0", "l  l"), {"merge 'l  l'"});
  expect_refused(changed(bpe, "/model/merges/2", "hell e"), {"'helle'"});
  expect_refused(changed(bpe, "/model/vocab/<pad>", nullptr), {"<pad>"});
  json without = bpe;
  without["model"]["vocab"].erase("<pad>");
  expect_refused(without, {"padding token", "pad_token"});
  without = bert;
  without.erase("model");
  expect_refused(without, {"'model'"});
  expect_refused(json::array(), {"tokenizers package"});
}

TEST_F(TokenizerTest, RefusesFilesWithoutTokenizer) {
  const auto expect = [&](std::initializer_list<std::string> parts) {
    test::expect_error<InputError>(
        [&] { Tokenizer::load(folder_.path()); }, parts);
  };
  expect({"has no tokenizer", "tokenizer.json", "vocab.txt", "merges.txt"});
  std::ofstream(folder_ / "vocab.json") << "{}";
  expect({"has no tokenizer"});
  std::ofstream(folder_ / "vocab.txt") << "[PAD]\n[UNK]\n\xFF\n";
  expect({"vocab.txt", "UTF-8"});
  std::ofstream(folder_ / "tokenizer_config.json")
      << R"({"tokenizer_class": "MPNetTokenizer"})";
  expect({"tokenizer_config.json", "'MPNetTokenizer'"});
  std::ofstream(folder_ / "tokenizer_config.json") << "[1]";
  expect({"tokenizer_config.json", "object"});
  std::ofstream(folder_ / "tokenizer_config.json") << "{";
  expect({"tokenizer_config.json", "JSON"});
  std::ofstream(folder_ / "tokenizer_config.json")
      << R"({"do_lower_case": "yes"})";
  std::ofstream(folder_ / "vocab.txt") << "[PAD]\n[UNK]\n";
  expect({folder_.path().string(), "boolean"});
}

} // namespace
} // namespace merganser
