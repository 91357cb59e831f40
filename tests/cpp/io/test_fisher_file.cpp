#include "merganser/io/fisher_file.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <limits>
#include <span>

#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace merganser::test {
namespace {

const FisherMetadata kExample = {
    .estimator = "mc",
    .num_examples = 112000,
    .num_examples_used = 2240,
    .samples = 2,
    .seed = std::numeric_limits<uint64_t>::max(),
    .labels = "model",
    .base_model_hash = "0123456789abcdef0123456789abcdef"};

// The keys and their values are the format: other programs read them.
TEST(FisherMetadata, HasTheKeysOfTheFormat) {
  const Metadata expected = {
      {"format_version", "1"},
      {"estimator", "mc"},
      {"num_examples", "112000"},
      {"num_examples_used", "2240"},
      {"samples", "2"},
      {"seed", "18446744073709551615"},
      {"labels", "model"},
      {"base_model_hash", "0123456789abcdef0123456789abcdef"}};
  EXPECT_EQ(kExample.to_metadata(), expected);
  EXPECT_EQ(
      FisherMetadata::parse(expected, "f").value().to_metadata(), expected);
}

TEST(FisherMetadata, IsAbsentInFilesOfOtherPrograms) {
  EXPECT_FALSE(FisherMetadata::parse({}, "f"));
  EXPECT_FALSE(FisherMetadata::parse({{"format", "pt"}}, "f"));
}

TEST(FisherMetadata, RefusesOtherVersions) {
  Metadata metadata = kExample.to_metadata();
  metadata["format_version"] = "2";
  expect_error<InputError>(
      [&] { FisherMetadata::parse(metadata, "f.safetensors"); },
      {"f.safetensors", "version '2'"});
}

TEST(FisherMetadata, RefusesMissingKeys) {
  for (const auto& [key, value] : kExample.to_metadata()) {
    if (key == "format_version" || key == "base_model_hash") {
      continue;
    }
    Metadata metadata = kExample.to_metadata();
    metadata.erase(key);
    expect_error<InputError>(
        [&] { FisherMetadata::parse(metadata, "f.safetensors"); },
        {"f.safetensors", "'" + key + "' is missing"});
  }
}

// A missing hash reads as an empty one.
TEST(FisherMetadata, TakesAMissingHashAsUnknown) {
  Metadata metadata = kExample.to_metadata();
  metadata.erase("base_model_hash");
  const auto parsed = FisherMetadata::parse(metadata, "f");
  EXPECT_EQ(parsed.value().base_model_hash, "");
  EXPECT_EQ(parsed->num_examples, kExample.num_examples);
}

TEST(FisherMetadata, RefusesOtherThanNumbers) {
  const std::pair<const char*, const char*> bad[] = {
      {"num_examples", "0"},
      {"num_examples", "-5"},
      {"num_examples", "12.5"},
      {"num_examples", "12 "},
      {"num_examples", ""},
      {"num_examples_used", "99999999999999999999"},
      {"samples", "two"},
      {"seed", "-1"}};
  for (const auto& [key, value] : bad) {
    Metadata metadata = kExample.to_metadata();
    metadata[key] = value;
    expect_error<InputError>(
        [&] { FisherMetadata::parse(metadata, "f.safetensors"); },
        {"f.safetensors", key, fmt::format("not '{}'", value)});
  }
}

// Files without it are float32, as all were.
TEST(FisherMetadata, HasAStorageUnlessFloat32) {
  for (const char* name : {"bfloat16", "factored"}) {
    FisherMetadata example = kExample;
    example.storage = parse_storage(name);
    Metadata metadata = example.to_metadata();
    EXPECT_EQ(metadata.at("storage"), name);
    EXPECT_EQ(storage_of(metadata), name);
    EXPECT_EQ(FisherMetadata::parse(metadata, "f")->storage, example.storage);
    metadata.erase("format_version");
    EXPECT_EQ(storage_of(metadata), "float32");
  }
  Metadata metadata = kExample.to_metadata();
  EXPECT_EQ(storage_of(metadata), "float32");
  metadata["storage"] = "int4";
  expect_error<InputError>(
      [&] { FisherMetadata::parse(metadata, "f.safetensors"); },
      {"f.safetensors", "'int4'", "float32, bfloat16, factored"});
  EXPECT_EQ(with_storage("f", "float32"), "f");
  EXPECT_EQ(with_storage("f", "factored"), "f (factored)");
}

// The Python package writes optimizer_state.
TEST(CopyWithScale, KeepsKeysOfOthers) {
  TemporaryFolder folder;
  Metadata metadata = kExample.to_metadata();
  metadata["optimizer_state"] = "{}";
  const float value = 2;
  SafetensorsWriter writer(folder / "f", {{"w", DType::kF32, {1}}}, metadata);
  writer.write("w", std::as_bytes(std::span(&value, 1)));
  writer.finish();
  const FisherScale scale{.scale = {3, 0.5}, .merge_hash = "1"};
  copy_with_scale(folder / "f", folder / "f", scale);
  metadata["scale"] = scale.to_json();
  EXPECT_EQ(SafetensorsFile(folder / "f").metadata(), metadata);
}

} // namespace
} // namespace merganser::test
