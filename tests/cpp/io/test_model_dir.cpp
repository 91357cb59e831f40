#include <gtest/gtest.h>

#include <algorithm>

#include "merganser/io/atomic_file.h"
#include "merganser/io/model_dir.h"
#include "raw_safetensors.h"
#include "support/expect_error.h"

namespace fs = std::filesystem;

namespace merganser {
namespace {

TEST(ModelDir, CopiesAllButTheWeights) {
  test::TemporaryFolder folder;
  fs::create_directory(folder / "model");
  fs::create_directory(folder / "copy");
  for (const char* name :
       {"config.json",
        "generation_config.json",
        "tokenizer.json",
        "vocab.txt",
        "merges.txt",
        "model.safetensors",
        "README.md"}) {
    test::write_bytes(folder / "model" / name, name);
  }
  // The cache of huggingface_hub consists of links to blobs.
  fs::rename(folder / "model" / "vocab.txt", folder / "blob");
  fs::create_symlink("../blob", folder / "model" / "vocab.txt");

  const ModelDir model(folder / "model");
  EXPECT_EQ(model.config_text(), "config.json");
  EXPECT_EQ(
      model.companions(),
      (std::vector<fs::path>{
          "generation_config.json",
          "merges.txt",
          "tokenizer.json",
          "vocab.txt"}));
  model.copy_without_weights(folder / "copy");
  for (const char* name :
       {"config.json",
        "generation_config.json",
        "tokenizer.json",
        "vocab.txt",
        "merges.txt"}) {
    EXPECT_EQ(read_file(folder / "copy" / name), name);
    EXPECT_FALSE(fs::is_symlink(folder / "copy" / name));
  }
  EXPECT_FALSE(fs::exists(folder / "copy" / "model.safetensors"));
  EXPECT_FALSE(fs::exists(folder / "copy" / "README.md"));
}

// The files are known by what they are not, as every kind of tokenizer and
// processor has its own.
TEST(ModelDir, CopiesFilesOfEveryKind) {
  test::TemporaryFolder folder;
  const fs::path model = folder / "model";
  const auto write = [&](const fs::path& file, const std::string& text) {
    fs::create_directories((model / file).parent_path());
    test::write_bytes(model / file, text);
  };
  std::vector<fs::path> expected = {
      "1_Pooling/config.json",
      "2_Dense/config.json",
      "2_Dense/pytorch_model.bin",
      "3_Router/0/model.safetensors",
      "additional_chat_templates/rag.jinja",
      "LICENSE",
      "bpe.codes",
      "modeling_x.py",
      "preprocessor_config.json",
      "processor_config.json",
      "sentence_bert_config.json",
      "source.spm",
      "spm.model",
      "target.spm",
      "video_preprocessor_config.json",
      "vocab.txt"};
  for (const fs::path& file : expected) {
    write(file, file.string());
  }
  write("config.json", "{}");
  write(
      "modules.json",
      R"([{"path": "", "type": "x.Transformer"},
          {"path": "1_Pooling", "type": "x.Pooling"},
          {"path": "2_Dense/", "type": "x.Dense"},
          {"path": "3_Router", "type": "x.Router"}])");
  expected.push_back("modules.json");
  for (const char* file :
       {".git/config",
        ".gitattributes",
        "1_Pooling/.DS_Store",
        "2_Dense/model.safetensors", // of the checkpoint
        "README.md",
        "adapter_config.json",
        "checkpoint-500/config.json",
        "events.out.tfevents.1",
        "heads/a.safetensors",
        "merganser.json",
        "model-00001-of-00002.safetensors",
        "model.safetensors.index.json",
        "optimizer.pt",
        "pytorch_model.bin",
        "rng_state.pth",
        "trainer_state.json",
        "training_args.bin"}) {
    write(file, "");
  }
  std::ranges::sort(expected);
  EXPECT_EQ(ModelDir(model).companions(), expected);
  fs::create_directory(folder / "copy");
  ModelDir(model).copy_without_weights(folder / "copy");
  expected.push_back("config.json");
  std::ranges::sort(expected);
  std::vector<fs::path> copied;
  for (const auto& entry : fs::recursive_directory_iterator(folder / "copy")) {
    if (entry.is_regular_file()) {
      copied.push_back(entry.path().lexically_relative(folder / "copy"));
    }
  }
  std::ranges::sort(copied);
  EXPECT_EQ(copied, expected);
}

TEST(ModelDir, RefusesLinksToNothing) {
  test::TemporaryFolder folder;
  test::write_bytes(folder / "config.json", "{}");
  fs::create_symlink("blob", folder / "spm.model");
  test::expect_error<InputError>(
      [&] { ModelDir(folder.path()).companions(); },
      {"spm.model", "symbolic link to a file that does not exist"});
}

TEST(ModelDir, RefusesOtherModules) {
  test::TemporaryFolder folder;
  test::write_bytes(folder / "config.json", "{}");
  const auto expect = [&](const char* modules, const char* words) {
    test::write_bytes(folder / "modules.json", modules);
    test::expect_error<InputError>(
        [&] { ModelDir(folder.path()).companions(); }, {"modules.json", words});
  };
  expect(R"([{"path": "../x", "type": "X"}])", "'../x', which is outside");
  expect(R"([{"path": "/x", "type": "X"}])", "'/x', which is outside");
  for (const char* damaged : {R"([{"path": "x"}])", R"({"path": "x"})", "["}) {
    expect(damaged, "expected a list of modules");
  }
}

TEST(ModelDir, RefusesATransformerInAModule) {
  test::TemporaryFolder folder;
  test::write_bytes(
      folder / "modules.json",
      R"([{"path": "0_Transformer", "type": "x.Transformer"}])");
  test::expect_error<InputError>(
      [&] { ModelDir(folder.path()); },
      {"no config.json",
       "Transformer in '0_Transformer'",
       "SentenceTransformer"});
}

TEST(ModelDir, RefusesOtherThings) {
  test::TemporaryFolder folder;
  test::write_bytes(folder / "f", "");
  using test::expect_error;
  expect_error<InputError>(
      [&] { ModelDir(folder / "f"); }, {"/f", "is not a directory"});
  expect_error<InputError>(
      [] { ModelDir("roberta-base"); }, {"roberta-base", "is not a directory"});
  expect_error<InputError>(
      [&] { ModelDir(folder.path()); },
      {folder.path().string(), "config.json"});
}

} // namespace
} // namespace merganser
