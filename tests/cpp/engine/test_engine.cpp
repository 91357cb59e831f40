// Whole merges on disk.

#include "merganser/base/interrupt.h"
#include "merganser/recipe/methods.h"
#include "support/engine_fixture.h"

namespace merganser::test {
namespace {

TEST_F(Engine, WritesTheFormulaRoundedOnce) {
  const std::vector<size_t> sizes = {
      0, 1, 3, 255, 256, 257, 65537, kStripElements + 1};
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
            expected<double>(MergeFormula::kGradientMatching, name);
        from_float64(dtype, values.data(), wanted.data(), values.size());
      } else {
        const auto values =
            expected<float>(MergeFormula::kGradientMatching, name);
        from_float32(dtype, values.data(), wanted.data(), values.size());
      }
      EXPECT_EQ(found, wanted) << out << " " << name;
    }
  }
}

TEST_F(Engine, GivesTheSameBytesForAnyNumberOfThreads) {
  write(
      {5, 3 * kChunkElements + 1, kChunkElements, kStripElements + 70001},
      DType::kF32);
  for (const MethodInfo* method : merge_methods()) {
    if (method->max_models == 1 || method->needs_grams() ||
        method->needs_subspace) {
      continue; // tests/python
    }
    const std::string name(method->name);
    const MergePlan plan = this->plan(
        name, "parameters: {density: 0.5, rescale: true, rho: 0.4}\n");
    execute_merge(plan, folder_ / (name + "1"), {.threads = 1});
    for (const int threads : {2, 3, 8}) {
      const std::string out = fmt::format("{}{}", name, threads);
      execute_merge(plan, folder_ / out, {.threads = threads});
      EXPECT_EQ(bytes(out), bytes(name + "1")) << out;
    }
  }
}

// Progress counts the chunks, with one thread.
TEST_F(Engine, MeasuresATensorOnceForParametersThatChangeNothing) {
  write({3 * kChunkElements}, DType::kF32);
  static int chunks;
  const auto count = [&](const std::string& parameters) {
    chunks = 0;
    set_interrupt_hook([] { ++chunks; });
    execute_merge(
        plan("ties", "parameters: {" + parameters + "}\n"),
        folder_ / parameters,
        {.threads = 1});
    set_interrupt_hook(nullptr);
    return chunks;
  };
  const int alone = count("density: 0.5, lambda: 1");
  EXPECT_EQ(count("density: 0.5, lambda: {sweep: [1, 2, 3]}"), alone);
  EXPECT_GT(count("density: {sweep: [0.5, 0.6, 0.5000001]}"), 2 * alone);
  EXPECT_EQ(
      read_values(
          folder_ / "density: 0.5, lambda: {sweep: [1, 2, 3]}" / "lambda=1",
          "t0"),
      read_values(folder_ / "density: 0.5, lambda: 1", "t0"));
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
  const auto wanted = expected<double>(MergeFormula::kEwr, "t0");
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
      make_plan(Recipe::parse(recipe, folder_.path(), "r.yaml")),
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

TEST_F(Engine, ReportsTheNotesOfThePlan) {
  write({3}, DType::kF32);
  MergePlan noted = plan("task_arithmetic");
  noted.notes = {"models[1] has another chat template"};
  const MergeReport report =
      execute_merge(noted, folder_ / "out", {.threads = 1});
  EXPECT_EQ(report.notes, noted.notes);
  EXPECT_NE(
      report.to_text().find("note: models[1] has another chat template\n"),
      std::string::npos);
  EXPECT_NE(
      report.to_json().find("models[1] has another chat template"),
      std::string::npos);
}

TEST_F(Engine, ReportsClampedDenominators) {
  write({1000}, DType::kF32);
  const MergeReport report =
      execute_merge(plan("removal"), folder_ / "out", {.threads = 2});
  Elements<double> elements;
  elements.base = read_values(folder_ / "base", "t0");
  elements.base_fisher = read_values(fisher_file(0), "t0");
  elements.models = {elements.base, elements.base};
  elements.fishers = {
      read_values(fisher_file(1), "t0"), read_values(fisher_file(2), "t0")};
  elements.weights = {1, 0.5};
  elements.scales = {200, 300};
  elements.base_scale = 100;
  elements.merge(MergeFormula::kRemoval);
  EXPECT_GT(elements.clamped, 0);
  EXPECT_LT(elements.clamped, 1000);
  EXPECT_EQ(report.clamped, elements.clamped);
  EXPECT_EQ(report.elements, 1000);
  EXPECT_NE(report.to_text().find("% of the denominators"), std::string::npos);
}

// Frozen layers have no Fisher; they also get the type of the output.
TEST_F(Engine, ConvertsTensorsWithoutFishers) {
  write({3, 2}, DType::kF32);
  for (int m = 0; m < 3; ++m) {
    const auto t0 = read_values(folder_ / kNames[m], "t0");
    write_model(
        folder_ / kNames[m], {floats("t0", t0), floats("t1", {0.1, -0.3})});
    write_fisher(
        fisher_file(m),
        {floats("t0", {1e-3, 2e-3, 0})},
        folder_ / kNames[m],
        100);
  }
  execute_merge(plan("gradient_matching"), folder_ / "out");
  EXPECT_EQ(
      read_values(folder_ / "out", "t1"), read_values(folder_ / "base", "t1"));
  execute_merge(
      plan("gradient_matching", "out_dtype: bfloat16\n"), folder_ / "half");
  EXPECT_EQ(Checkpoint(folder_ / "half").find("t1")->dtype, DType::kBF16);
  const TestTensor expected = floats("t1", {0.1, -0.3}, DType::kBF16);
  std::vector<std::byte> found(4);
  Checkpoint(folder_ / "half").read("t1", found);
  EXPECT_EQ(found, expected.data);
}

} // namespace
} // namespace merganser::test
