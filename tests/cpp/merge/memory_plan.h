#pragma once

#include <deque>
#include <filesystem>
#include <string>
#include <vector>

#include "merganser/plan/tensor_plan.h"
#include "merganser/recipe/methods.h"

namespace merganser::test {

// Tensors in memory, and a TensorPlan that reads them. Sources and Gram
// matrices must be added in the order of TensorPlan's positions.
class MemoryPlan {
 public:
  MemoryPlan(
      std::string_view method,
      std::vector<int64_t> shape,
      DType dtype = DType::kF64) {
    plan.method = &find_method(method);
    plan.output = {"layer.weight", dtype, std::move(shape)};
    plan.drawn_as = plan.output.name;
    plan.float64 = dtype == DType::kF64;
    plan.parameters.emplace_back();
  }

  // Adds the base or a model.
  template <typename T>
  void add_source(const std::string& file, const std::vector<T>& values) {
    plan.sources.push_back({store(file, plan.output, values)});
  }

  void add_gram(
      const std::string& file,
      const std::vector<double>& values,
      double num_examples) {
    const int64_t n = plan.output.shape[1];
    const TensorInfo info = {plan.output.name, DType::kF64, {n, n}};
    plan.grams.push_back({{store(file, info, values)}, num_examples});
  }

  TensorPlan plan;

 private:
  struct Stored {
    std::filesystem::path label;
    TensorInfo info;
    std::vector<std::byte> data;
  };

  template <typename T>
  StoredTensor store(
      const std::string& file,
      const TensorInfo& info,
      const std::vector<T>& values) {
    const auto bytes = std::as_bytes(std::span(values));
    stored_.push_back({file, info, {bytes.begin(), bytes.end()}});
    const Stored& kept = stored_.back();
    return StoredTensor(kept.data, kept.info, kept.label);
  }

  std::deque<Stored> stored_; // a deque keeps addresses
};

} // namespace merganser::test
