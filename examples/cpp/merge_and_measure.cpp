// merge_and_measure RECIPE.yaml OUT: executes a recipe, then prints how far the
// merge moved each tensor from the base: |merged - base| / |base|.

#include <cmath>
#include <cstdio>
#include <vector>

#include "merganser/base/error.h"
#include "merganser/engine/execute.h"

using merganser::Checkpoint;

std::vector<double> values(const Checkpoint& model, const std::string& name) {
  const merganser::TensorInfo& tensor = *model.find(name);
  std::vector<std::byte> bytes(tensor.bytes());
  model.read(name, bytes);
  std::vector<double> result(tensor.numel());
  to_float64(tensor.dtype, bytes.data(), result.data(), result.size());
  return result;
}

int main(int argc, char** argv) try {
  if (argc != 3) {
    throw merganser::InputError("usage: merge_and_measure RECIPE.yaml OUT");
  }
  const merganser::MergePlan plan = make_plan(merganser::Recipe::load(argv[1]));
  std::fputs(execute_merge(plan, argv[2]).to_text().c_str(), stdout);

  const Checkpoint merged(argv[2]);
  for (const merganser::TensorPlan& tensor : plan.tensors) {
    if (tensor.action != merganser::TensorAction::kMerge || !plan.base) {
      continue;
    }
    const std::string& name = tensor.output.name;
    const auto base = values(*plan.inputs[*plan.base], name);
    const auto moved = values(merged, name);
    double step = 0;
    double size = 0;
    for (size_t i = 0; i < base.size(); ++i) {
      step += (moved[i] - base[i]) * (moved[i] - base[i]);
      size += base[i] * base[i];
    }
    std::printf("%9.2e  %s\n", std::sqrt(step / size), name.c_str());
  }
} catch (const merganser::Error& error) {
  std::fprintf(stderr, "merge_and_measure: %s\n", error.what());
  return 1;
}
