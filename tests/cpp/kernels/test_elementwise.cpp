// square_accumulate and adam_fisher_step have the bits of their formulas.

#include <vector>

#include "arrays.h"
#include "merganser/kernels/kernels.h"

namespace merganser::kernels {
namespace {

// Sizes around a pack, a block of threads and a block's chunk of elements.
constexpr int64_t kSizes[] = {0, 1, 3, 4, 5, 255, 257, 1027, 16384, 16387};

template <typename In>
class Elementwise : public testing::Test {};
TYPED_TEST_SUITE(Elementwise, InputTypes);

TYPED_TEST(Elementwise, SquareAccumulate) {
  using T = Accumulator<TypeParam>;
  const T weight = T(0.3);
  for (const int64_t n : kSizes) {
    for (const int offset : {0, 1}) {
      const auto grad = hard_numbers<TypeParam>(n, offset, 0);
      auto fisher = random_numbers<T>(n, 0, 1);
      auto expected = fisher;
      for (int64_t i = 0; i < n; ++i) {
        const T x = static_cast<T>(to_double(grad[i]));
        expected[i] += x * x * weight;
      }
      launch_square_accumulate(grad.data(), fisher.data(), n, weight, nullptr);
      expect_same_bits(fisher, expected);
    }
  }
}

template <typename In>
struct Parameter {
  using T = Accumulator<In>;

  Parameter(int64_t n, int offset, int step)
      : grad(hard_numbers<In>(n, offset, 0)),
        param(random_numbers<T>(n, offset, 1)),
        exp_avg(random_numbers<T>(n, 0, 2)),
        exp_avg_sq(random_numbers<T>(n, offset, 3, 0, 1)),
        fisher(random_numbers<T>(n, 0, 4, 0, 1)),
        scalars(
            make_adam_scalars<T>(1e-3, 0.9, 0.99, 1e-8, 0.01, step, 0.5, 4)) {}

  AdamTensor<T, In> tensor(bool collect) {
    return {
        grad.data(),
        param.data(),
        exp_avg.data(),
        exp_avg_sq.data(),
        collect ? fisher.data() : nullptr,
        grad.size(),
        scalars};
  }

  void step(bool collect) {
    for (int64_t i = 0; i < grad.size(); ++i) {
      const T square = adam_element<T>(
          scalars,
          static_cast<T>(to_double(grad[i])),
          param[i],
          exp_avg[i],
          exp_avg_sq[i]);
      if (collect) {
        fisher[i] += square * scalars.fisher_weight;
      }
    }
  }

  Array<In> grad;
  Array<T> param, exp_avg, exp_avg_sq, fisher;
  AdamScalars<T> scalars;
};

// More tensors than one launch takes, with several sizes and steps.
TYPED_TEST(Elementwise, AdamFisherStepOfAList) {
  for (const bool collect : {false, true}) {
    std::vector<Parameter<TypeParam>> parameters;
    for (int round = 0; round < 5; ++round) {
      for (const int64_t n : kSizes) {
        parameters.emplace_back(n, round % 2, 1 + round);
      }
    }
    auto expected = parameters;
    std::vector<AdamTensor<Accumulator<TypeParam>, TypeParam>> tensors;
    for (auto& parameter : parameters) {
      tensors.push_back(parameter.tensor(collect));
    }
    launch_adam_fisher_step(tensors.data(), std::ssize(tensors), nullptr);
    for (size_t i = 0; i < expected.size(); ++i) {
      expected[i].step(collect);
      expect_same_bits(parameters[i].param, expected[i].param);
      expect_same_bits(parameters[i].exp_avg, expected[i].exp_avg);
      expect_same_bits(parameters[i].exp_avg_sq, expected[i].exp_avg_sq);
      expect_same_bits(parameters[i].fisher, expected[i].fisher);
    }
  }
}

} // namespace
} // namespace merganser::kernels
