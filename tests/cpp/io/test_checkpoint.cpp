#include <gtest/gtest.h>

#include <fmt/format.h>

#include "merganser/io/atomic_file.h"
#include "merganser/io/checkpoint.h"
#include "raw_safetensors.h"
#include "support/expect_error.h"

namespace fs = std::filesystem;

namespace merganser {
namespace {

using test::expect_error;
using Names = std::vector<std::string>;

const std::vector<TensorInfo> kTensors = {
    {"a", DType::kF32, {2}},
    {"b", DType::kU8, {5}},
    {"c", DType::kF16, {2, 2}},
    {"d", DType::kI64, {}}};

std::vector<std::byte> data_of(const TensorInfo& tensor) {
  return std::vector<std::byte>(
      tensor.bytes(), static_cast<std::byte>(tensor.name[0]));
}

void write_checkpoint(const fs::path& folder, uint64_t shard_bytes) {
  fs::create_directories(folder);
  CheckpointWriter writer(folder, kTensors, {{"k", "v"}}, shard_bytes);
  for (auto tensor = kTensors.rbegin(); tensor != kTensors.rend(); ++tensor) {
    writer.write(tensor->name, data_of(*tensor));
  }
  writer.finish();
}

void expect_all_tensors(const Checkpoint& checkpoint) {
  EXPECT_EQ(checkpoint.tensors().size(), kTensors.size());
  for (const TensorInfo& tensor : kTensors) {
    ASSERT_NE(checkpoint.find(tensor.name), nullptr);
    EXPECT_EQ(*checkpoint.find(tensor.name), tensor);
    std::vector<std::byte> data(tensor.bytes());
    checkpoint.read(tensor.name, data);
    EXPECT_EQ(data, data_of(tensor));
  }
  EXPECT_EQ(checkpoint.metadata(), (Metadata{{"format", "pt"}, {"k", "v"}}));
}

TEST(Checkpoint, OneFile) {
  test::TemporaryFolder folder;
  write_checkpoint(folder.path(), UINT64_MAX);
  EXPECT_EQ(folder.names(), Names{"model.safetensors"});
  expect_all_tensors(Checkpoint(folder.path()));
  expect_all_tensors(Checkpoint(folder / "model.safetensors"));
  fs::rename(folder / "model.safetensors", folder / "fisher.safetensors");
  expect_all_tensors(Checkpoint(folder.path()));
}

TEST(Checkpoint, Shards) {
  test::TemporaryFolder folder;
  // 8 | 5 | 8 | 8 bytes: 'a' and 'b' fill one shard to the byte.
  write_checkpoint(folder.path(), 13);
  EXPECT_EQ(
      folder.names(),
      (Names{
          "model-00001-of-00003.safetensors",
          "model-00002-of-00003.safetensors",
          "model-00003-of-00003.safetensors",
          "model.safetensors.index.json"}));
  const Checkpoint checkpoint(folder.path());
  expect_all_tensors(checkpoint);
  EXPECT_EQ(checkpoint.files().size(), 3u);
  EXPECT_EQ(
      checkpoint.file_of("c"), folder / "model-00002-of-00003.safetensors");
  expect_all_tensors(Checkpoint(folder / "model.safetensors.index.json"));
  EXPECT_NE(
      read_file(folder / "model.safetensors.index.json")
          .find("\"total_size\": 29"),
      std::string::npos);
}

TEST(Checkpoint, LargeTensorsHaveShardsOfTheirOwn) {
  test::TemporaryFolder folder;
  write_checkpoint(folder.path(), 1);
  EXPECT_EQ(Checkpoint(folder.path()).files().size(), 4u);
  expect_all_tensors(Checkpoint(folder.path()));
}

// The tensors of modules are in directories of their own, shards or not.
TEST(Checkpoint, ModulesOfSentenceTransformers) {
  test::TemporaryFolder folder;
  std::vector<TensorInfo> tensors = kTensors;
  tensors.push_back({"2_Dense/linear.bias", DType::kF32, {3}});
  tensors.push_back({"2_Dense/a", DType::kF32, {1}}); // as one of the model's
  std::string hash;
  for (const uint64_t shard_bytes : {uint64_t{1}, UINT64_MAX}) {
    const fs::path model = folder / fmt::format("{}", shard_bytes);
    fs::create_directories(model);
    CheckpointWriter writer(
        model, tensors, {}, shard_bytes, Appearance::kWhenWhole, {"2_Dense"});
    for (const TensorInfo& tensor : tensors) {
      writer.write(tensor.name, data_of(tensor));
    }
    writer.finish();
    EXPECT_EQ(Checkpoint(model).tensors().size(), kTensors.size());
    test::write_bytes(
        model / "modules.json",
        R"([{"path": "", "type": "x.Transformer"},
            {"path": "2_Dense", "type": "x.Dense"}])");
    const Checkpoint checkpoint(model);
    EXPECT_EQ(checkpoint.modules(), std::vector<fs::path>{"2_Dense"});
    EXPECT_TRUE(checkpoint.left_out().empty());
    ASSERT_EQ(checkpoint.tensors().size(), tensors.size());
    for (const TensorInfo& tensor : tensors) {
      EXPECT_EQ(checkpoint.at(tensor.name).info(), tensor);
      std::vector<std::byte> data(tensor.bytes());
      checkpoint.read(tensor.name, data);
      EXPECT_EQ(data, data_of(tensor));
    }
    const Checkpoint dense(model / "2_Dense");
    EXPECT_NE(dense.find("linear.bias"), nullptr);
    EXPECT_TRUE(hash.empty() || hash == checkpoint.content_hash());
    hash = checkpoint.content_hash();
  }
}

TEST(Checkpoint, NothingAppearsBeforeFinish) {
  test::TemporaryFolder folder;
  {
    CheckpointWriter writer(folder.path(), kTensors, {}, 13);
    for (const TensorInfo& tensor : kTensors) {
      if (tensor.name != "c") {
        writer.write(tensor.name, data_of(tensor));
      }
    }
    for (const std::string& name : folder.names()) {
      EXPECT_TRUE(name.starts_with(".")) << name;
    }
  }
  EXPECT_TRUE(folder.names().empty());
}

TEST(Checkpoint, WriterRefuses) {
  test::TemporaryFolder folder;
  expect_error<InputError>(
      [&] {
        CheckpointWriter(
            folder.path(), {kTensors[0], kTensors[1], kTensors[0]}, {}, 1);
      },
      {"'a'", "twice"});
  expect_error<Error>(
      [&] {
        CheckpointWriter writer(folder.path(), kTensors, {});
        writer.write("x", {});
      },
      {"'x'", "not declared"});
  expect_error<Error>(
      [&] { CheckpointWriter(folder.path(), kTensors, {}).finish(); },
      {"'d'", "byte 0 was not written"});
  EXPECT_TRUE(folder.names().empty());
}

TEST(Checkpoint, HashDependsOnContentOnly) {
  test::TemporaryFolder folder;
  write_checkpoint(folder / "one", UINT64_MAX);
  write_checkpoint(folder / "many", 1);
  const std::string hash = Checkpoint(folder / "one").content_hash();
  EXPECT_EQ(hash.size(), 64u);
  EXPECT_EQ(Checkpoint(folder / "many").content_hash(), hash);

  const auto hash_with = [&](const TensorInfo& tensor, char fill) {
    SafetensorsWriter writer(folder / "f.safetensors", {tensor});
    writer.write(
        tensor.name,
        std::vector<std::byte>(tensor.bytes(), static_cast<std::byte>(fill)));
    writer.finish();
    return Checkpoint(folder / "f.safetensors").content_hash();
  };
  const std::string reference = hash_with({"t", DType::kF16, {2, 3}}, 'x');
  EXPECT_EQ(hash_with({"t", DType::kF16, {2, 3}}, 'x'), reference);
  EXPECT_NE(hash_with({"u", DType::kF16, {2, 3}}, 'x'), reference);
  EXPECT_NE(hash_with({"t", DType::kBF16, {2, 3}}, 'x'), reference);
  EXPECT_NE(hash_with({"t", DType::kF16, {3, 2}}, 'x'), reference);
  EXPECT_NE(hash_with({"t", DType::kF16, {2, 3}}, 'y'), reference);
}

// A directory with a given index of the shards x (tensor a) and y (tensor b).
class Index : public testing::Test {
 protected:
  Index() {
    for (const auto& [file, tensor] :
         {std::pair{"x", kTensors[0]}, std::pair{"y", kTensors[1]}}) {
      SafetensorsWriter writer(
          folder_ / (std::string(file) + ".safetensors"), {tensor});
      writer.write(tensor.name, data_of(tensor));
      writer.finish();
    }
  }
  void expect_refused(
      std::string_view index,
      std::initializer_list<std::string> parts) {
    test::write_bytes(folder_ / "model.safetensors.index.json", index);
    expect_error<InputError>(
        [&] { Checkpoint checkpoint(folder_.path()); }, parts);
  }

  test::TemporaryFolder folder_;
};

TEST_F(Index, AgreesWithTheShards) {
  test::write_bytes(
      folder_ / "model.safetensors.index.json",
      R"({"weight_map":{"a":"x.safetensors","b":"y.safetensors"}})");
  EXPECT_EQ(Checkpoint(folder_.path()).tensors().size(), 2u);
}

TEST_F(Index, DisagreesWithTheShards) {
  expect_refused(
      R"({"weight_map":{"a":"x.safetensors","b":"z.safetensors"}})",
      {"z.safetensors", "No such file"});
  expect_refused(
      R"({"weight_map":{"a":"y.safetensors","b":"x.safetensors"}})",
      {"index.json", "'a'", "'y.safetensors'"});
  expect_refused(
      R"({"weight_map":{"a":"x.safetensors","c":"y.safetensors"}})",
      {"index.json", "'c'", "'y.safetensors'"});
  expect_refused(
      R"({"weight_map":{"a":"x.safetensors","c":"x.safetensors"}})",
      {"index.json", "'c'", "'x.safetensors'"});
}

// Leaves out, as transformers, mergekit and vLLM do, a stale copy of a tensor
// in another shard and a tensor that the index does not name.
TEST_F(Index, DecidesWhereATensorIs) {
  SafetensorsWriter writer(
      folder_ / "y.safetensors",
      {kTensors[1], {"a", DType::kU8, {1}}, {"extra", DType::kU8, {1}}});
  writer.write("b", data_of(kTensors[1]));
  writer.write("a", std::vector<std::byte>(1));
  writer.write("extra", std::vector<std::byte>(1));
  writer.finish();
  test::write_bytes(
      folder_ / "model.safetensors.index.json",
      R"({"weight_map":{"a":"x.safetensors","b":"y.safetensors"}})");
  const Checkpoint checkpoint(folder_.path());
  EXPECT_EQ(
      checkpoint.tensors(),
      (std::vector<TensorInfo>{kTensors[0], kTensors[1]}));
  std::vector<std::byte> data(kTensors[0].bytes());
  checkpoint.read("a", data);
  EXPECT_EQ(data, data_of(kTensors[0]));
  EXPECT_EQ(checkpoint.file_of("a"), folder_ / "x.safetensors");
  EXPECT_EQ(
      checkpoint.left_out(),
      (Names{"'a' in y.safetensors", "'extra' in y.safetensors"}));

  // The other way around.
  test::write_bytes(
      folder_ / "model.safetensors.index.json",
      R"({"weight_map":{"a":"y.safetensors","b":"y.safetensors"}})");
  const Checkpoint other(folder_.path());
  EXPECT_EQ(other.find("a")->dtype, DType::kU8);
  EXPECT_EQ(other.files().size(), 1u);
}

TEST_F(Index, LeadsOutside) {
  for (const char* path :
       {"../x.safetensors",
        "/x.safetensors",
        "./x.safetensors",
        "d/x.safetensors",
        "..",
        "",
        "x.safetensors/",
        "model.safetensors.index.json",
        "x.bin"}) {
    expect_refused(
        fmt::format(R"({{"weight_map":{{"a":"{}"}}}})", path),
        {"index.json", "'a'", fmt::format("'{}'", path), "own directory"});
  }
}

TEST_F(Index, IsNoIndex) {
  expect_refused("", {"index.json", "not valid JSON"});
  expect_refused("[1]", {"index.json", "weight_map"});
  expect_refused("{}", {"index.json", "weight_map"});
  expect_refused(R"({"weight_map":["a"]})", {"index.json", "weight_map"});
  expect_refused(R"({"weight_map":{"a":1}})", {"index.json", "'a'"});
  expect_refused("{\"weight_map\":{\"\xff\":\"x\"}}", {"UTF-8"});
  expect_refused(R"({"weight_map":{"\ud800":"x"}})", {"surrogate"});
  expect_refused(
      R"({"weight_map":{"a":"x.safetensors","a":"y.safetensors"}})",
      {"index.json", "'a'", "duplicate"});
  expect_refused(std::string(2'000'000, '['), {"index.json", "levels deep"});
}

TEST(CheckpointFolder, NothingToOpen) {
  test::TemporaryFolder folder;
  const auto open = [&] { Checkpoint checkpoint(folder.path()); };
  expect_error<InputError>(
      open, {folder.path().string(), "contains no .safetensors file"});
  test::write_bytes(folder / "pytorch_model.bin", "");
  expect_error<InputError>(open, {"pytorch_model.bin", "save_pretrained"});
  test::write_bytes(folder / "p.safetensors", "");
  test::write_bytes(folder / "q.safetensors", "");
  expect_error<InputError>(open, {"p.safetensors, q.safetensors", "name one"});
}

} // namespace
} // namespace merganser
