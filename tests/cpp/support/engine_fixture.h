#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>

#include "merganser/engine/execute.h"
#include "merganser/engine/strips.h"
#include "support/elements.h"
#include "support/model_files.h"
#include "support/temporary_folder.h"

namespace merganser::test {

inline constexpr const char* kNames[] = {"base", "a", "b"};

// Numbers without obvious repetition, the same in every run.
inline std::vector<double> numbers(
    size_t n,
    double seed,
    double least,
    double most) {
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
    return make_plan(Recipe::parse(
        "merge_method: " + method + R"(
base_model: base
base_fisher: base_fisher.safetensors
models:
  - {model: a, fisher: a_fisher.safetensors, parameters: {weight: 1}}
  - {model: b, fisher: b_fisher.safetensors, parameters: {weight: 0.5}}
)" + more,
        folder_.path(),
        "recipe.yaml"));
  }

  std::string bytes(const std::string& out) const {
    return read_file(folder_ / out / "model.safetensors");
  }

  // The result of merge_elements for the files.
  template <typename T>
  std::vector<T> expected(MergeFormula method, const std::string& name) const {
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

} // namespace merganser::test
