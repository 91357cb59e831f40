// Errors that end a merge, after which it leaves no directory behind.

#include "merganser/base/error.h"
#include "merganser/base/interrupt.h"
#include "merganser/provenance/provenance.h"
#include "support/engine_fixture.h"
#include "support/expect_error.h"

namespace merganser::test {
namespace {

class EngineFailure : public Engine {
 protected:
  template <typename Problem>
  void expect_failure(
      const std::string& method,
      std::initializer_list<std::string> words,
      const std::string& more = "") {
    const auto before = folder_.names();
    expect_error<Problem>(
        [&] {
          execute_merge(plan(method, more), folder_ / "out", {.threads = 4});
        },
        words);
    EXPECT_EQ(folder_.names(), before);
  }

  // Changes the tensor t1 of a file.
  template <typename Change>
  void rewrite(
      const std::filesystem::path& file,
      const Metadata& metadata,
      const Change& change) {
    const Checkpoint checkpoint(file);
    std::vector<TestTensor> tensors;
    for (const TensorInfo& info : checkpoint.tensors()) {
      auto values = read_values(file, info.name);
      if (info.name == "t1") {
        change(values);
      }
      tensors.push_back(floats(info.name, values, info.dtype));
    }
    write_tensors(file, tensors, metadata);
  }

  void poke(const std::filesystem::path& path, size_t index, double value) {
    const Checkpoint checkpoint(path);
    rewrite(checkpoint.files()[0], checkpoint.metadata(), [&](auto& values) {
      values[index] = value;
    });
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

// Every value is finite, but not times its number of examples.
TEST_F(EngineFailure, FishersTooLargeForFloat32) {
  write({10, 100000}, DType::kF32);
  poke(fisher_file(2), 50000, 3e38);
  for (const char* method : {"fisher", "gradient_matching"}) {
    expect_failure<InputError>(
        method,
        {fisher_file(2).string(),
         "'t1'",
         "3e+38",
         "index 50000",
         "300 examples",
         "dtype: float64"});
  }
  execute_merge(
      plan("fisher", "dtype: float64\nout_dtype: float32\n"),
      folder_ / "wider");
  execute_merge(
      plan("fisher", "parameters: {normalize_fishers: true}\n"),
      folder_ / "normalized");
}

TEST_F(EngineFailure, FisherOfOtherWeights) {
  write({10, 100}, DType::kF32);
  poke(folder_ / "a", 3, 0.125);
  expect_failure<InputError>(
      "gradient_matching",
      {fisher_file(1).string(), (folder_ / "a").string(), "other weights"});
  // Accepted: a method without Fishers, and a Fisher without a hash.
  execute_merge(plan("task_arithmetic"), folder_ / "without");
  Metadata metadata = Checkpoint(fisher_file(1)).metadata();
  metadata["base_model_hash"] = "";
  rewrite(fisher_file(1), metadata, [](auto&) {});
  execute_merge(plan("gradient_matching"), folder_ / "unknown");
}

// A difference outside the first half of the content hash is found at the end.
TEST_F(EngineFailure, FisherOfWeightsThatDifferFarFromTheirBeginning) {
  write({10, 100000}, DType::kF32);
  poke(folder_ / "a", 99999, 0.125);
  expect_failure<InputError>(
      "gradient_matching",
      {fisher_file(1).string(), (folder_ / "a").string(), "other weights"});
}

TEST_F(EngineFailure, TooLittleMemory) {
  write({10, 100}, DType::kF32);
  expect_error<InputError>(
      [&] {
        execute_merge(plan("linear"), folder_ / "out", {.memory = 100000});
      },
      {"one thread of this merge needs", "100.0 kB"});
}

TEST_F(EngineFailure, ResultTooLargeForItsType) {
  write({10, 100}, DType::kF32);
  poke(folder_ / "base", 5, 70000);
  poke(folder_ / "a", 5, 70000);
  poke(folder_ / "b", 5, 70000);
  expect_failure<InputError>(
      "task_arithmetic",
      {"'t1'", "70000", "index 5", "F16 cannot represent"},
      "out_dtype: float16\n");
  execute_merge(
      plan("task_arithmetic", "out_dtype: bfloat16\n"), folder_ / "wider");
}

TEST_F(EngineFailure, ResultTooLargeForBFloat16) {
  write({10, 100}, DType::kBF16);
  for (const char* model : {"base", "a", "b"}) {
    poke(folder_ / model, 5, 3.38953139e38); // its largest number
  }
  const char* weights = "parameters: {normalize: false}\n";
  expect_failure<InputError>(
      "linear", {"'t1'", "inf at index 5", "BF16 cannot represent"}, weights);
  const MergeReport report = execute_merge(
      plan("linear", weights), folder_ / "all", {.allow_nonfinite = true});
  EXPECT_EQ(report.nonfinite, 1);
  EXPECT_TRUE(std::isinf(read_values(folder_ / "all", "t1")[5]));
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

TEST_F(EngineFailure, AnInterruptedMergeGoesOn) {
  const size_t n = 2 * kStripElements - 1;
  write(std::vector<size_t>(3, n), DType::kF32);
  execute_merge(plan("task_arithmetic"), folder_ / "whole");
  static int calls;
  calls = 0;
  set_interrupt_hook([] {
    if (++calls == 6) { // in the third tensor
      throw Interrupted("interrupted");
    }
  });
  const MergeOptions options = {.threads = 1};
  EXPECT_THROW(
      execute_merge(plan("task_arithmetic"), folder_ / "out", options),
      Interrupted);
  set_interrupt_hook(nullptr);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "out"));
  EXPECT_TRUE(std::filesystem::exists(folder_ / "out.merging"));

  // Another merge does not resume it.
  expect_error<InputError>(
      [&] { execute_merge(plan("linear"), folder_ / "out", {.resume = true}); },
      {"out.merging", "another merge"});
  const MergeReport report =
      execute_merge(plan("task_arithmetic"), folder_ / "out", {.resume = true});
  EXPECT_EQ(report.tensors_resumed, 2);
  EXPECT_EQ(bytes("out"), bytes("whole"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "out.merging"));
  EXPECT_EQ(
      Provenance::read(folder_ / "out")->content_hash,
      Checkpoint(folder_ / "whole").content_hash());

  // The complete merge is accepted with resume and refused without.
  const MergeReport done =
      execute_merge(plan("task_arithmetic"), folder_ / "out", {.resume = true});
  EXPECT_EQ(done.tensors_resumed, 3);
  EXPECT_THROW(
      execute_merge(plan("task_arithmetic"), folder_ / "out"), InputError);
}

TEST_F(EngineFailure, WithoutResumeAMergeBeginsAnew) {
  write({10, 100000}, DType::kF32);
  std::filesystem::create_directories(folder_ / "out.merging" / "model");
  write_text(folder_ / "out.merging" / "journal", "something\n0 0 0\n");
  write_text(folder_ / "out.merging" / "model" / "stray", "x");
  execute_merge(plan("task_arithmetic"), folder_ / "out");
  EXPECT_FALSE(std::filesystem::exists(folder_ / "out" / "stray"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "out.merging"));
}

TEST_F(EngineFailure, NewFoldersAroundTheOutputGoWithIt) {
  write({10, 100}, DType::kF32);
  std::filesystem::create_directories(folder_ / "mine");
  const auto out = folder_ / "mine" / "new" / "newer" / "out";
  poke(folder_ / "b", 7, INFINITY);
  EXPECT_THROW(execute_merge(plan("linear"), out), InputError);
  EXPECT_TRUE(std::filesystem::exists(folder_ / "mine"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "mine" / "new"));
  // They stay after a success, and if they contain files of others.
  execute_merge(plan("linear"), out, {.allow_nonfinite = true});
  EXPECT_TRUE(std::filesystem::exists(out / "model.safetensors"));
  EXPECT_THROW(execute_merge(plan("linear"), out / "below" / "x"), InputError);
  EXPECT_FALSE(std::filesystem::exists(out / "below"));
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
