#include "merganser/fisher/square_sums.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include "merganser/ops/ops.h"

namespace merganser {

SquareSums::SquareSums(Encoder& model) {
  for (const auto& item : model->named_parameters()) {
    const at::Tensor& parameter = item.value();
    parameters_.push_back(parameter);
    sums_.emplace_back(
        item.key(),
        at::zeros(parameter.sizes(), parameter.options().dtype(at::kFloat)));
  }
}

namespace {

class ExampleSquares : public SquareSums {
 public:
  explicit ExampleSquares(Encoder& model) : SquareSums(model), model_(model) {
    for (size_t i = 0; i < parameters_.size(); ++i) {
      sink_.add(parameters_[i], sums_[i].second);
    }
    model_->set_gradient_sink(&sink_);
  }
  ~ExampleSquares() override {
    model_->set_gradient_sink(nullptr);
  }

  void add(const at::Tensor& logits, const at::Tensor& v, bool last) override {
    logits.backward(v, /*retain_graph=*/!last);
  }

 private:
  Encoder model_;
  FisherSink sink_;
};

class BatchSquares : public SquareSums {
 public:
  using SquareSums::SquareSums;

  void add(const at::Tensor& logits, const at::Tensor& v, bool last) override {
    const auto gradients = torch::autograd::grad(
        {logits}, parameters_, {v}, /*retain_graph=*/!last);
    for (size_t i = 0; i < gradients.size(); ++i) {
      ops::square_accumulate_(sums_[i].second, gradients[i], 1.0);
    }
  }
};

} // namespace

std::unique_ptr<SquareSums> square_examples(Encoder& model) {
  return std::make_unique<ExampleSquares>(model);
}

std::unique_ptr<SquareSums> square_batches(Encoder& model) {
  return std::make_unique<BatchSquares>(model);
}

} // namespace merganser
