// Vocabularies that versions of the libraries write differently.

#include <gtest/gtest.h>

#include "merganser/plan/vocabularies.h"
#include "support/model_files.h"
#include "support/temporary_folder.h"

namespace merganser::test {
namespace {

class Vocabularies : public ::testing::Test {
 protected:
  bool same(const std::string& name, const std::string& a, const std::string& b)
      const {
    for (const char* model : {"a", "b"}) {
      std::filesystem::create_directories(folder_ / model);
    }
    write_text(folder_ / "a" / name, a);
    write_text(folder_ / "b" / name, b);
    return same_vocabulary(folder_ / "a" / name, folder_ / "b" / name);
  }

  TemporaryFolder folder_;
};

TEST_F(Vocabularies, AreKnownByTheirNames) {
  for (const char* name :
       {"tokenizer.json",
        "added_tokens.json",
        "vocab.txt",
        "vocab.json",
        "merges.txt",
        "tokenizer.model",
        "tokenizer.model.v3",
        "mistral_instruct_tokenizer_240323.model.v3",
        "spm.model",
        "spiece.model",
        "sentencepiece.bpe.model",
        "bpe.codes",
        "source.spm",
        "target.spm",
        "vocab-src.json",
        "entity_vocab.json",
        "target_vocab.json",
        "vocab.bpe",
        "dict.txt",
        "qwen.tiktoken",
        "prophetnet.tokenizer",
        "tekken.json"}) {
    EXPECT_TRUE(is_vocabulary(name)) << name;
  }
  for (const char* name :
       {"config.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "preprocessor_config.json",
        "modeling_x.py",
        "LICENSE"}) {
    EXPECT_FALSE(is_vocabulary(name)) << name;
  }
}

TEST_F(Vocabularies, CompareMergesAsPairs) {
  const auto text = [](const char* merges, const char* more) {
    return std::string(R"({"model": {"type": "BPE", "vocab": {"a": 0}, )") +
        R"("merges": [)" + merges + "]" + more + "}}";
  };
  const char* name = "tokenizer.json";
  const std::string old = text(R"("a b", "ab c")", "");
  EXPECT_TRUE(same(name, old, text(R"(["a", "b"], ["ab", "c"])", "")));
  EXPECT_TRUE(same(
      name,
      old,
      text(
          R"(["a", "b"], ["ab", "c"])",
          R"(, "dropout": null, "ignore_merges": false)")));
  EXPECT_FALSE(same(name, old, text(R"(["a", "b"], ["ab", "d"])", "")));
  EXPECT_FALSE(same(name, old, text(R"("ab c", "a b")", "")));
  EXPECT_FALSE(
      same(name, old, text(R"("a b", "ab c")", R"(, "ignore_merges": true)")));
}

TEST_F(Vocabularies, KnowTheDefaultsOfSteps) {
  const auto text = [](const char* step) {
    return std::string(R"({"pre_tokenizer": {"type": "Sequence", )") +
        R"("pretokenizers": [{)" + step + "}]}}";
  };
  const auto both = [&](const char* a, const char* b) {
    return same("tokenizer.json", text(a), text(b));
  };
  EXPECT_TRUE(both(
      R"("type": "ByteLevel", "trim_offsets": true)",
      R"("type": "ByteLevel", "trim_offsets": true, "use_regex": true)"));
  EXPECT_FALSE(both(
      R"("type": "ByteLevel")", R"("type": "ByteLevel", "use_regex": false)"));
  const char* old = R"("type": "Metaspace", "replacement": "_", )"
                    R"("add_prefix_space": true)";
  EXPECT_TRUE(both(
      old,
      R"("type": "Metaspace", "replacement": "_", "split": true, )"
      R"("prepend_scheme": "always")"));
  EXPECT_FALSE(both(
      old,
      R"("type": "Metaspace", "replacement": "_", )"
      R"("prepend_scheme": "never")"));
}

TEST_F(Vocabularies, CompareJsonByItsValues) {
  EXPECT_TRUE(
      same("vocab.json", R"({"\u0120a": 1, "b": 0})", "{\"b\":0,\"Ġa\":1}\n"));
  EXPECT_FALSE(same("vocab.json", R"({"a": 1})", R"({"a": 0})"));
  EXPECT_FALSE(same("vocab.json", "broken", "damaged"));
}

TEST_F(Vocabularies, CompareTextByItsLines) {
  EXPECT_TRUE(same("vocab.txt", "a\nb\n", "a\r\nb"));
  EXPECT_FALSE(same("vocab.txt", "a\nb\n", "b\na\n"));
  EXPECT_FALSE(same("vocab.txt", "a\n\nb\n", "a\nb\n"));
  EXPECT_TRUE(same(
      "merges.txt",
      "#version: 0.2\na b\n",
      "#version: 0.2 - Trained by `huggingface/tokenizers`\na b"));
  EXPECT_TRUE(same("merges.txt", "#version: 0.2\na b\n", "a b\n"));
  EXPECT_FALSE(same("merges.txt", "a b\n# #\n", "a b\n"));
}

TEST_F(Vocabularies, CompareBinaryFilesByTheirBytes) {
  EXPECT_TRUE(same("spm.model", "a\n", "a\n"));
  EXPECT_FALSE(same("spm.model", "a\n", "a"));
}

} // namespace
} // namespace merganser::test
