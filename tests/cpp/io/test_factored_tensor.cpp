#include "merganser/io/factored_tensor.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "support/expect_error.h"
#include "support/model_files.h"
#include "support/temporary_folder.h"

namespace merganser::test {
namespace {

const Metadata kFactored = {{"format_version", "1"}, {"storage", "factored"}};

TestTensor shaped(
    const std::string& name,
    std::vector<int64_t> shape,
    const std::vector<double>& values) {
  TestTensor tensor = floats(name, values);
  tensor.info.shape = std::move(shape);
  return tensor;
}

std::vector<double> random_values(size_t n, int seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<double> normal;
  std::vector<double> values(n);
  for (double& x : values) { // as a file would hold them
    x = static_cast<float>(std::exp(6 * normal(generator) - 20));
  }
  return values;
}

void write_factors(
    const std::filesystem::path& file,
    const TestTensor& rows,
    const TestTensor& columns) {
  write_tensors(file, {rows, columns, floats("b", {1, 2})}, kFactored);
}

TEST(FactoredTensor, IsTheProductOfItsMeans) {
  const TemporaryFolder folder;
  const int64_t stacks = 3, height = 5, width = 7;
  std::vector<double> r = random_values(stacks * height, 1);
  const std::vector<double> c = random_values(stacks * width, 2);
  r[3] = 0;
  std::fill_n(r.begin() + 2 * height, height, 0.0); // a matrix of zeros
  write_factors(
      folder / "f.safetensors",
      shaped("w.row_means", {stacks, height}, r),
      shaped("w.column_means", {stacks, width}, c));
  const Checkpoint file(folder / "f.safetensors");
  EXPECT_EQ(file.tensors().size(), 2);
  EXPECT_EQ(file.find("w.row_means"), nullptr);
  ASSERT_NE(file.find("w"), nullptr);
  const TensorInfo expected{"w", DType::kF32, {stacks, height, width}};
  EXPECT_EQ(*file.find("w"), expected);
  EXPECT_EQ(file.at("w").info(), expected);
  EXPECT_EQ(file.at("w").stored_bytes(), 4 * stacks * (height + width));
  EXPECT_EQ(file.at("b").stored_bytes(), 8);
  const std::vector<double> values = read_values(folder / "f.safetensors", "w");
  for (int64_t s = 0; s < stacks; ++s) {
    double mean = 0;
    for (int64_t i = 0; i < height; ++i) {
      mean += r[s * height + i] / static_cast<double>(height);
    }
    for (int64_t i = 0; i < height; ++i) {
      for (int64_t j = 0; j < width; ++j) {
        const double f =
            mean == 0 ? 0 : r[s * height + i] * c[s * width + j] / mean;
        EXPECT_NEAR(
            values[(s * height + i) * width + j],
            f,
            std::numeric_limits<float>::epsilon() * f)
            << s << ' ' << i << ' ' << j;
      }
    }
  }
}

TEST(FactoredTensor, PartsAreThoseOfTheWhole) {
  const TemporaryFolder folder;
  write_factors(
      folder / "f.safetensors",
      shaped("w.row_means", {2, 5}, random_values(10, 1)),
      shaped("w.column_means", {2, 7}, random_values(14, 2)));
  const Checkpoint file(folder / "f.safetensors");
  std::vector<std::byte> whole(4 * 70);
  file.read("w", whole);
  for (size_t begin = 0; begin <= 70; ++begin) {
    for (size_t n = 0; begin + n <= 70; n += 3) {
      std::vector<std::byte> part(4 * n + 1); // and unaligned
      file.read("w", std::span(part).subspan(1), 4 * begin);
      EXPECT_TRUE(
          std::equal(part.begin() + 1, part.end(), whole.begin() + 4 * begin))
          << begin << ' ' << n;
    }
  }
  expect_error<InputError>([&] { file.read("w", whole, 4); }, {"'w'", "280"});
}

TEST(FactoredTensor, HasTheHashOfItsValues) {
  const TemporaryFolder folder;
  write_factors(
      folder / "f.safetensors",
      shaped("w.row_means", {300}, random_values(300, 1)),
      shaped("w.column_means", {70}, random_values(70, 2)));
  write_tensors(
      folder / "whole.safetensors",
      {shaped("w", {300, 70}, read_values(folder / "f.safetensors", "w")),
       floats("b", {1, 2})});
  EXPECT_EQ(
      Checkpoint(folder / "f.safetensors").content_hash(),
      Checkpoint(folder / "whole.safetensors").content_hash());
}

TEST(FactoredTensor, IsReadFromShards) {
  const TemporaryFolder folder;
  write_factors(
      folder / "one.safetensors",
      shaped("w.row_means", {2}, {1, 3}),
      shaped("w.column_means", {3}, {1, 2, 3}));
  write_text(
      folder / "f.safetensors.index.json",
      R"({"weight_map": {"w.row_means": "one.safetensors",
          "w.column_means": "one.safetensors", "b": "one.safetensors"}})");
  EXPECT_EQ(
      read_values(folder / "f.safetensors.index.json", "w"),
      (std::vector<double>{0.5, 1, 1.5, 1.5, 3, 4.5}));
}

// Other programs may use such names.
TEST(FactoredTensor, IsOneOnlyInAFactoredFisher) {
  const TemporaryFolder folder;
  for (const char* storage : {"bfloat16", ""}) {
    write_tensors(
        folder / "f.safetensors",
        {floats("w.row_means", {1, 3})},
        {{"format_version", "1"}, {"storage", storage}});
    EXPECT_NE(
        Checkpoint(folder / "f.safetensors").find("w.row_means"), nullptr);
  }
}

TEST(FactoredTensor, RefusesFactorsThatDoNotFit) {
  const TemporaryFolder folder;
  const auto refuse = [&](const std::vector<TestTensor>& tensors,
                          std::initializer_list<std::string> parts) {
    write_tensors(folder / "f.safetensors", tensors, kFactored);
    expect_error<InputError>(
        [&] { Checkpoint(folder / "f.safetensors"); }, parts);
  };
  const TestTensor rows = floats("w.row_means", {1, 3});
  const TestTensor columns = floats("w.column_means", {1, 2, 3});
  refuse({rows}, {"f.safetensors", "no tensor 'w.column_means'"});
  refuse({columns}, {"f.safetensors", "no tensor 'w.row_means'"});
  refuse({rows, columns, floats("w", {1})}, {"'w'", "both"});
  refuse(
      {rows, shaped("w.column_means", {2, 2}, {1, 2, 3, 4})},
      {"'w'", "[2]", "[2, 2]"});
  refuse({shaped("w.row_means", {}, {1}), columns}, {"'w'", "[]", "[3]"});
  refuse(
      {rows, floats("w.column_means", {1, 2}, DType::kF64)},
      {"'w.column_means'", "expected F32, got F64"});
  for (const double bad : {-1.0, -0.5, double(NAN), double(INFINITY)}) {
    refuse(
        {floats("w.row_means", {1, bad}), columns},
        {"'w.row_means'", "at least 0", fmt::format("got {}", bad)});
  }
}

} // namespace
} // namespace merganser::test
