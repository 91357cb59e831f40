// Merges in memory of plans over the same files.

#include "merganser/engine/held_inputs.h"
#include "merganser/engine/merge_tensor.h"
#include "merganser/merge/fisher_means.h"
#include "merganser/recipe/methods.h"
#include "support/engine_fixture.h"

namespace merganser::test {
namespace {

using HeldInputsOfEngine = Engine;

TEST_F(HeldInputsOfEngine, GiveTheBytesOfAMergeOfFiles) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    write({5, kChunkElements + 3}, dtype);
    HeldInputs inputs;
    for (const MethodInfo* method : merge_methods()) {
      if (method->max_models == 1 || method->needs_grams() ||
          method->needs_subspace) {
        continue; // one tensor's merge is the same code
      }
      const std::string name(method->name);
      const std::string more =
          "parameters: {density: 0.5, rho: 0.4, normalize_fishers: true}\n";
      const std::string out = name + std::string(dtype_name(dtype));
      execute_merge(plan(name, more), folder_ / out, {.threads = 1});
      MergePlan held = plan(name, more);
      inputs.hold(held);
      const std::vector<double> means = fisher_means(held, 1);
      const Checkpoint merged(folder_ / out);
      for (const TensorPlan& tensor : held.tensors) {
        std::vector<std::byte> wanted(tensor.output.bytes());
        std::vector<std::byte> found(wanted.size());
        merged.read(tensor.output.name, wanted);
        merge_tensor(tensor, 0, means, found, 2);
        EXPECT_EQ(found, wanted) << name;
      }
    }
  }
}

TEST_F(HeldInputsOfEngine, AreReadOnce) {
  write({7}, DType::kF32);
  HeldInputs inputs;
  MergePlan first = plan("gradient_matching");
  MergePlan second = plan("gradient_matching");
  inputs.hold(first);
  for (const auto& file : first.inputs) {
    std::filesystem::resize_file(file->files().front(), 0);
  }
  inputs.hold(second);
  std::vector<std::byte> out(second.tensors[0].output.bytes());
  merge_tensor(second.tensors[0], 0, {}, out, 1);
  EXPECT_NE(out, std::vector<std::byte>(out.size()));
}

} // namespace
} // namespace merganser::test
