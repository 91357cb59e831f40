#include <gtest/gtest.h>

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
      model.tokenizer_files(),
      (std::vector<fs::path>{
          folder / "model" / "tokenizer.json",
          folder / "model" / "vocab.txt",
          folder / "model" / "merges.txt"}));
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
