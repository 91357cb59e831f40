// Whole merges on disk.

#include <gtest/gtest.h>

#include <fmt/format.h>

#include <cmath>
#include <limits>

#include "elements.h"
#include "io/error.h"
#include "io/interrupt.h"
#include "io/model_dir.h"
#include "merge/engine.h"
#include "model_files.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace merganser::test {
namespace {

constexpr const char* kNames[] = {"base", "a", "b"};

// Numbers that repeat in no obvious way, the same in every run.
std::vector<double> numbers(size_t n, double seed, double least, double most) {
  std::vector<double> values(n);
  for (size_t i = 0; i < n; ++i) {
    const double wave = std::sin(seed + 12.9898 * static_cast<double>(i));
    values[i] = least + (most - least) * (wave + 1) / 2;
  }
  return values;
}

class Engine : public ::testing::Test {
 protected:
  // Tensors t0, t1, ... of these sizes; the Fishers of base, a and b.
  void write(const std::vector<size_t>& sizes, DType dtype) {
    for (int m = 0; m < 3; ++m) {
      std::vector<TestTensor> tensors, fishers;
      for (size_t k = 0; k < sizes.size(); ++k) {
        const std::string name = fmt::format("t{}", k);
        const double seed = 100.0 * m + static_cast<double>(k);
        tensors.push_back(floats(name, numbers(sizes[k], seed, -1, 1), dtype));
        fishers.push_back(floats(name, numbers(sizes[k], seed + 50, 0, 1e-6)));
      }
      write_model(folder_ / kNames[m], tensors);
      write_fisher(fisher_file(m), fishers, folder_ / kNames[m], 100 * (m + 1));
    }
  }

  std::filesystem::path fisher_file(int m) const {
    return folder_ / (std::string(kNames[m]) + "_fisher.safetensors");
  }

  MergePlan plan(const std::string& method, const std::string& more = "") {
    return MergePlan(Recipe::parse(
        "merge_method: " + method + R"(
base_model: base
base_fisher: base_fisher.safetensors
models:
  - {model: a, fisher: a_fisher.safetensors}
  - {model: b, fisher: b_fisher.safetensors, parameters: {weight: 0.5}}
)" + more,
        folder_.path(),
        "recipe.yaml"));
  }

  std::string bytes(const std::string& out) const {
    return read_file(folder_ / out / "model.safetensors");
  }

  // What merge_elements makes of the files.
  template <typename T>
  std::vector<T> expected(MergeMethod method, const std::string& name) const {
    const auto read = [&](const std::filesystem::path& file) {
      const auto values = read_values(file, name);
      return std::vector<T>(values.begin(), values.end());
    };
    Elements<T> elements;
    elements.base = read(folder_ / "base");
    elements.base_fisher = read(fisher_file(0));
    elements.models = {read(folder_ / "a"), read(folder_ / "b")};
    elements.fishers = {read(fisher_file(1)), read(fisher_file(2))};
    elements.weights = {1, T(0.5)};
    elements.scales = {200, 300};
    elements.base_scale = 100;
    elements.delta = T(1e-12);
    return elements.merge(method);
  }

  TemporaryFolder folder_;
};

TEST_F(Engine, WritesTheFormulaRoundedOnce) {
  const std::vector<size_t> sizes = {0, 1, 3, 255, 256, 257, 65537};
  for (const DType dtype :
       {DType::kF32, DType::kF16, DType::kBF16, DType::kF64}) {
    write(sizes, dtype);
    const std::string out = std::string(dtype_name(dtype));
    execute_merge(plan("gradient_matching"), folder_ / out);
    const Checkpoint merged(folder_ / out);
    for (size_t k = 0; k < sizes.size(); ++k) {
      const std::string name = fmt::format("t{}", k);
      std::vector<std::byte> found(merged.find(name)->bytes());
      merged.read(name, found);
      std::vector<std::byte> wanted(found.size());
      if (dtype == DType::kF64) {
        const auto values =
            expected<double>(MergeMethod::kGradientMatching, name);
        from_float64(dtype, values.data(), wanted.data(), values.size());
      } else {
        const auto values =
            expected<float>(MergeMethod::kGradientMatching, name);
        from_float32(dtype, values.data(), wanted.data(), values.size());
      }
      EXPECT_EQ(found, wanted) << out << " " << name;
    }
  }
}

TEST_F(Engine, GivesTheSameBytesForAnyNumberOfThreads) {
  write({5, 3 * kChunkElements + 1, kChunkElements, 70001}, DType::kF32);
  for (const MethodInfo& method : merge_methods()) {
    const std::string name(method.name);
    const MergePlan plan = this->plan(name);
    execute_merge(plan, folder_ / (name + "1"), 1);
    for (const int threads : {2, 3, 8}) {
      const std::string out = fmt::format("{}{}", name, threads);
      execute_merge(plan, folder_ / out, threads);
      EXPECT_EQ(bytes(out), bytes(name + "1")) << out;
    }
  }
}

TEST_F(Engine, ConvertsToTheTypeAskedFor) {
  write({300}, DType::kF32);
  execute_merge(
      plan("task_arithmetic", "out_dtype: bfloat16\n"), folder_ / "half");
  execute_merge(plan("task_arithmetic"), folder_ / "full");
  EXPECT_EQ(Checkpoint(folder_ / "half").find("t0")->dtype, DType::kBF16);
  const auto half = read_values(folder_ / "half", "t0");
  const auto full = read_values(folder_ / "full", "t0");
  for (size_t i = 0; i < full.size(); ++i) {
    EXPECT_NEAR(half[i], full[i], std::abs(full[i]) / 256);
  }
  const std::string config = read_file(folder_ / "half" / "config.json");
  EXPECT_NE(config.find("\"torch_dtype\": \"bfloat16\""), std::string::npos);
}

TEST_F(Engine, ComputesInFloat64WhereAskedFor) {
  write({300}, DType::kF32);
  execute_merge(
      plan("ewr", "dtype: float64\nout_dtype: float32\n"), folder_ / "out");
  const auto wanted = expected<double>(MergeMethod::kEwr, "t0");
  const auto found = read_values(folder_ / "out", "t0");
  for (size_t i = 0; i < wanted.size(); ++i) {
    EXPECT_EQ(found[i], static_cast<float>(wanted[i]));
  }
}

TEST_F(Engine, KeepsSharding) {
  write({40, 30, 20}, DType::kF32);
  const Checkpoint base(folder_ / "base");
  TemporaryFolder sharded;
  CheckpointWriter writer(sharded.path(), base.tensors(), {}, 40 * 4);
  for (const TensorInfo& tensor : base.tensors()) {
    std::vector<std::byte> data(tensor.bytes());
    base.read(tensor.name, data);
    writer.write(tensor.name, data);
  }
  writer.finish();
  write_text(sharded / "config.json", "{}");
  execute_merge(plan("task_arithmetic"), folder_ / "one");
  const std::string recipe = fmt::format(
      "{{merge_method: task_arithmetic, base_model: {}, models: [{{model: a}}, "
      "{{model: b, parameters: {{weight: 0.5}}}}]}}",
      sharded.path().string());
  execute_merge(
      MergePlan(Recipe::parse(recipe, folder_.path(), "r.yaml")),
      folder_ / "many");
  EXPECT_EQ(Checkpoint(folder_ / "one").files().size(), 1u);
  EXPECT_EQ(Checkpoint(folder_ / "many").files().size(), 3u);
  EXPECT_EQ(
      Checkpoint(folder_ / "many").content_hash(),
      Checkpoint(folder_ / "one").content_hash());
}

TEST_F(Engine, CopiesIntegersAndHeads) {
  for (int m = 0; m < 3; ++m) {
    const double x = m;
    write_model(
        folder_ / kNames[m],
        {floats("w", {x}),
         floats("classifier.weight", {10 * x, 5}, DType::kF16),
         integers("position_ids", {m})});
    write_fisher(fisher_file(m), {floats("w", {1})}, folder_ / kNames[m], 100);
  }
  const MergeReport report = execute_merge(
      plan("gradient_matching", "heads: per_task\n"), folder_ / "out");
  EXPECT_EQ(report.tensors_merged, 1);
  EXPECT_EQ(report.tensors_copied, 2);
  const std::filesystem::path out = folder_ / "out";
  EXPECT_EQ(read_values(out, "classifier.weight"), (std::vector<double>{0, 5}));
  EXPECT_EQ(
      read_values(out / "heads" / "b.safetensors", "classifier.weight"),
      (std::vector<double>{20, 5}));
  const Checkpoint merged(out);
  int64_t position = -1;
  merged.read("position_ids", std::as_writable_bytes(std::span(&position, 1)));
  EXPECT_EQ(position, 0);
  EXPECT_EQ(merged.metadata().at("merge_method"), "gradient_matching");
  EXPECT_NE(
      merged.metadata().at("merge_recipe").find("heads: per_task"),
      std::string::npos);
  EXPECT_EQ(merged.metadata().at("format"), "pt");
}

TEST_F(Engine, ReportsClampedDenominators) {
  write({1000}, DType::kF32);
  const MergeReport report = execute_merge(plan("removal"), folder_ / "out", 2);
  Elements<double> elements;
  elements.base = read_values(folder_ / "base", "t0");
  elements.base_fisher = read_values(fisher_file(0), "t0");
  elements.models = {elements.base, elements.base};
  elements.fishers = {
      read_values(fisher_file(1), "t0"), read_values(fisher_file(2), "t0")};
  elements.weights = {1, 0.5};
  elements.scales = {200, 300};
  elements.base_scale = 100;
  elements.merge(MergeMethod::kRemoval);
  EXPECT_GT(elements.clamped, 0);
  EXPECT_LT(elements.clamped, 1000);
  EXPECT_EQ(report.clamped, elements.clamped);
  EXPECT_EQ(report.elements, 1000);
  EXPECT_NE(report.to_text().find("% of the denominators"), std::string::npos);
}

// Everything that ends a merge leaves no folder, and no temporary one.
class EngineFailure : public Engine {
 protected:
  template <typename Problem>
  void expect_failure(
      const std::string& method,
      std::initializer_list<std::string> words,
      const std::string& more = "") {
    const auto before = folder_.names();
    expect_error<Problem>(
        [&] { execute_merge(plan(method, more), folder_ / "out", 4); }, words);
    EXPECT_EQ(folder_.names(), before);
  }

  // Replaces one value of a file.
  void poke(const std::filesystem::path& file, size_t index, double value) {
    const Checkpoint checkpoint(file);
    std::vector<TestTensor> tensors;
    for (const TensorInfo& info : checkpoint.tensors()) {
      auto values = read_values(file, info.name);
      if (info.name == "t1") {
        values[index] = value;
      }
      tensors.push_back(floats(info.name, values, info.dtype));
    }
    const std::filesystem::path target =
        std::filesystem::is_directory(file) ? file / "model.safetensors" : file;
    write_tensors(target, tensors, checkpoint.metadata());
  }
};

TEST_F(EngineFailure, NonFiniteParameters) {
  write({10, 100000}, DType::kBF16);
  poke(folder_ / "b", 77777, std::nan(""));
  poke(folder_ / "b", 40000, INFINITY);
  expect_failure<InputError>(
      "task_arithmetic",
      {(folder_ / "b" / "model.safetensors").string(),
       "'t1'",
       "inf",
       "index 40000"});
}

TEST_F(EngineFailure, BadFishers) {
  write({10, 100000}, DType::kF32);
  for (const double bad : {-1e-12, std::nan("")}) {
    poke(fisher_file(1), 50000, bad);
    expect_failure<InputError>(
        "fisher",
        {fisher_file(1).string(), "'t1'", "index 50000", "not negative"});
  }
}

TEST_F(EngineFailure, FisherOfOtherWeights) {
  write({10, 100}, DType::kF32);
  poke(folder_ / "a", 3, 0.125);
  expect_failure<InputError>(
      "gradient_matching",
      {fisher_file(1).string(), (folder_ / "a").string(), "other weights"});
  execute_merge(plan("task_arithmetic"), folder_ / "without");
}

TEST_F(EngineFailure, ResultTooLargeForItsType) {
  write({10, 100}, DType::kF32);
  poke(folder_ / "base", 5, 70000);
  poke(folder_ / "a", 5, 70000);
  poke(folder_ / "b", 5, 70000);
  expect_failure<InputError>(
      "task_arithmetic",
      {"'t1'", "70000", "index 5", "F16 cannot hold"},
      "out_dtype: float16\n");
  execute_merge(
      plan("task_arithmetic", "out_dtype: bfloat16\n"), folder_ / "wider");
}

TEST_F(EngineFailure, ExistingOutput) {
  write({10, 100}, DType::kF32);
  write_text(folder_ / "file", "mine");
  std::filesystem::create_directories(folder_ / "full");
  write_text(folder_ / "full" / "mine", "mine");
  for (const char* name : {"file", "full"}) {
    EXPECT_THROW(execute_merge(plan("linear"), folder_ / name), InputError);
  }
  EXPECT_EQ(read_file(folder_ / "file"), "mine");
  EXPECT_EQ(read_file(folder_ / "full" / "mine"), "mine");
}

TEST_F(EngineFailure, Interrupt) {
  write({100000, 100000, 100000}, DType::kF32);
  static int calls;
  calls = 0;
  set_interrupt_hook([] {
    if (++calls == 3) { // at the third tensor or before
      throw Interrupted("interrupted");
    }
  });
  expect_failure<Interrupted>("task_arithmetic", {"interrupted"});
  set_interrupt_hook(nullptr);
}

TEST_F(EngineFailure, TooLittleSpace) {
  write({10, 100}, DType::kF32);
  MergePlan plan = this->plan("task_arithmetic");
  plan.bytes_written = uint64_t{1} << 60;
  expect_error<Error>(
      [&] { execute_merge(plan, folder_ / "new" / "out"); },
      {"needs", "free", (folder_ / "new" / "out").string()});
  EXPECT_FALSE(std::filesystem::exists(folder_ / "new"));
}

} // namespace
} // namespace merganser::test
