// merganser.json as it is written and read, and the hash of what a merge uses
// of an input besides its tensors.

#include "merganser/provenance/provenance.h"

#include <gtest/gtest.h>

#include "merganser/io/lora.h"
#include "support/expect_error.h"
#include "support/model_files.h"
#include "support/temporary_folder.h"

namespace merganser {
namespace {

using test::expect_error;
using test::TemporaryFolder;

const Provenance kExample = {
    .version = "1.2",
    .identity = "id",
    .method = "fisher",
    .output = "weight=0.2",
    .recipe = "merge_method: fisher\n",
    .recipe_hash = "r",
    .inputs = {{"/a/model", "../model", "c1", ""}, {"f", "../f", "c2", "s2"}},
    .content_hash = "c",
    .clamped = 3,
    .largest_weight = 1.5,
    .nonfinite = 4};

TEST(Provenance, IsReadAsWritten) {
  const TemporaryFolder folder;
  EXPECT_FALSE(Provenance::read(folder.path()));
  kExample.write(folder.path());
  const auto found = Provenance::read(folder.path());
  ASSERT_TRUE(found);
  EXPECT_EQ(found->to_json(), kExample.to_json());
  ASSERT_EQ(found->inputs.size(), 2);
  EXPECT_EQ(found->inputs[1].path, "f");
  EXPECT_EQ(found->inputs[1].from_output, "../f");
  EXPECT_EQ(found->inputs[1].settings_hash, "s2");
  EXPECT_EQ(found->largest_weight, 1.5);
}

TEST(Provenance, OtherVersionsAndDamagedFilesAreRefused) {
  const TemporaryFolder folder;
  auto json = nlohmann::json::parse(kExample.to_json());
  json["format_version"] = 1;
  test::write_text(folder / kProvenanceFile, json.dump());
  expect_error<InputError>(
      [&] { Provenance::read(folder.path()); },
      {"merganser.json has format_version 1", "reads 2"});
  json["format_version"] = 2;
  json.erase("identity");
  for (const std::string& text :
       {json.dump(), std::string("{"), std::string()}) {
    test::write_text(folder / kProvenanceFile, text);
    expect_error<InputError>(
        [&] { Provenance::read(folder.path()); },
        {"merganser.json is damaged"});
  }
}

TEST(SettingsHash, CoversMetadataOfStatistics) {
  const TemporaryFolder folder;
  const auto hash = [&](const Metadata& metadata) {
    test::write_tensors(
        folder / "f.safetensors", {test::floats("w", {1})}, metadata);
    return settings_hash(Checkpoint(folder / "f.safetensors"));
  };
  EXPECT_EQ(hash({}), "");
  EXPECT_EQ(hash({{"format", "pt"}}), "");
  const std::string ten =
      hash({{"format_version", "1"}, {"num_examples", "10"}});
  EXPECT_NE(ten, "");
  EXPECT_NE(hash({{"format_version", "1"}, {"num_examples", "20"}}), ten);
  EXPECT_EQ(hash({{"format_version", "1"}, {"num_examples", "10"}}), ten);
}

TEST(SettingsHash, CoversTheConfigurationOfAdapters) {
  const TemporaryFolder folder;
  const auto hash = [&](const std::string& config) {
    test::write_text(folder / std::string(kAdapterConfig), config);
    return settings_hash(Checkpoint(folder / std::string(kAdapterWeights)));
  };
  test::write_tensors(
      folder / std::string(kAdapterWeights), {test::floats("w", {1})});
  const std::string rank = hash(R"({"r": 4})");
  EXPECT_NE(rank, "");
  EXPECT_NE(hash(R"({"r": 8})"), rank);
}

} // namespace
} // namespace merganser
