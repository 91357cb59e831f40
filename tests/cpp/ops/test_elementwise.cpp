// Elementwise ops have the bits of their definitions for all types, sizes,
// numbers of threads, unaligned views and numbers that are not finite.

#include <gtest/gtest.h>

#include "merganser/ops/reference.h"
#include "merganser/recipe/methods.h"
#include "support.h"

namespace merganser::ops {
namespace {

// Calls test(input type, accumulator type, n).
template <typename Test>
void for_all_sizes(Test test) {
  at::manual_seed(0);
  for (const int64_t n : kSizes) {
    for (const int threads : {1, 3}) {
      const Threads scope(threads);
      for (const at::ScalarType type : kInputTypes) {
        SCOPED_TRACE(
            testing::Message()
            << type << ", " << n << " elements, " << threads << " threads");
        test(type, at::kFloat, n);
      }
      SCOPED_TRACE(testing::Message() << "float64 sums, " << n << " elements");
      test(at::kDouble, at::kDouble, n);
      test(at::kBFloat16, at::kDouble, n);
    }
  }
}

TEST(SquareAccumulate, HasTheBitsOfItsDefinition) {
  for_all_sizes([](at::ScalarType in, at::ScalarType out, int64_t n) {
    const at::Tensor grad = hard_numbers(n, in);
    at::Tensor fused = hard_numbers(n, out);
    at::Tensor expected = fused.clone();
    square_accumulate_(fused, grad, 0.3);
    square_accumulate_reference_(expected, grad, 0.3);
    EXPECT_TRUE(same_bits(fused, expected));
  });
}

TEST(SquareAccumulate, TakesStridedGradients) {
  const at::Tensor grad = at::randn({33, 65}).t();
  at::Tensor fused = at::zeros({65, 33});
  square_accumulate_(fused, grad, 2);
  EXPECT_TRUE(same_bits(fused, grad.square() * 2));
}

TEST(SquareAccumulate, KeepsTinyFishers) {
  at::Tensor fisher = at::full({3}, 1e-30f);
  square_accumulate_(fisher, at::full({3}, 1e-15f).to(at::kBFloat16), 1);
  EXPECT_NEAR(fisher[0].item<double>() / 2e-30, 1, 0.01);
}

TEST(AdamFisherStep, HasTheBitsOfItsDefinition) {
  for_all_sizes([](at::ScalarType in, at::ScalarType out, int64_t n) {
    for (const bool with_fisher : {true, false}) {
      at::Tensor state[2][4];
      for (int k = 0; k < 4; ++k) {
        state[0][k] = hard_numbers(n, out);
        if (k == 2) {
          state[0][k].abs_(); // the second moment
        }
        state[1][k] = state[0][k].clone();
      }
      for (int64_t step = 1; step <= 3; ++step) {
        const at::Tensor grad = hard_numbers(n, in);
        const auto run = [&](void (*function)(const AdamFisherStep&),
                             at::Tensor* s) {
          function(
              {.params = s[0],
               .grads = grad,
               .exp_avgs = s[1],
               .exp_avg_sqs = s[2],
               .fishers = with_fisher ? at::TensorList(s[3]) : at::TensorList(),
               .steps = step,
               .lr = 1e-2,
               .weight_decay = 0.1,
               .grad_scale = 0.7,
               .fisher_weight = 1.3});
        };
        run(adam_fisher_step_, state[0]);
        run(adam_fisher_step_reference_, state[1]);
      }
      for (int k = 0; k < 4; ++k) {
        // ATen's float64 root is not always rounded correctly.
        EXPECT_TRUE(
            out == at::kFloat
                ? same_bits(state[0][k], state[1][k])
                : at::allclose(state[0][k], state[1][k], 1e-14, 1e-14, true))
            << "tensor " << k;
      }
    }
  });
}

// Parameters of several sizes, types and steps at once.
TEST(AdamFisherStep, OfAListEqualsThatOfEachItem) {
  using List = std::vector<at::Tensor>;
  at::manual_seed(0);
  List grads, lists[2][4]; // parameters, moments, Fishers
  std::vector<int64_t> steps;
  for (const int64_t n : kSizes) {
    for (const at::ScalarType type : {at::kFloat, at::kDouble}) {
      grads.push_back(hard_numbers(n, steps.size() % 3 ? type : at::kHalf));
      steps.push_back(1 + steps.size());
      for (List& list : lists[0]) {
        list.push_back(at::rand({n}, type));
      }
    }
  }
  for (int k = 0; k < 4; ++k) {
    for (const at::Tensor& x : lists[0][k]) {
      lists[1][k].push_back(x.clone());
    }
  }
  const auto step = [&](List* l, size_t begin, size_t count) {
    const auto part = [&](const List& list) {
      return at::TensorList(list).slice(begin, count);
    };
    adam_fisher_step_(
        {.params = part(l[0]),
         .grads = part(grads),
         .exp_avgs = part(l[1]),
         .exp_avg_sqs = part(l[2]),
         .fishers = part(l[3]),
         .steps = at::IntArrayRef(steps).slice(begin, count),
         .lr = 1e-2,
         .weight_decay = 0.1,
         .grad_scale = 0.7,
         .fisher_weight = 1.3});
  };
  step(lists[0], 0, steps.size());
  for (size_t i = 0; i < steps.size(); ++i) {
    step(lists[1], i, 1);
    for (int k = 0; k < 4; ++k) {
      EXPECT_TRUE(same_bits(lists[0][k][i], lists[1][k][i]))
          << "tensor " << k << " of parameter " << i;
    }
  }
}

// Models around a base, in `type`; Fishers (one of them with zeros) in float32.
struct MergeCase {
  at::Tensor base;
  at::Tensor base_fisher;
  std::vector<at::Tensor> models;
  std::vector<at::Tensor> fishers;
  std::vector<double> weights;
  std::vector<double> num_examples;
  std::vector<double> rhos; // of gradient matching

  MergeCase(int64_t n, int64_t count, at::ScalarType type) {
    base = hard_numbers(n, type);
    base_fisher = hard_numbers(n, at::kFloat).square() * 1e-8;
    for (int64_t t = 0; t < count; ++t) {
      models.push_back(hard_numbers(n, type));
      fishers.push_back(hard_numbers(n, at::kFloat).square() * 1e-8);
      fishers.back().slice(0, 0, n, 2).zero_();
      weights.push_back(0.5 + 0.1 * t);
      num_examples.push_back(1000 + t);
    }
    base_fisher.slice(0, 0, n, 4).zero_();
  }

  at::Tensor run(decltype(&merge) function, const MethodInfo& method) const {
    TensorMerge merge{
        .models = models,
        .weights = weights,
        .rhos = rhos,
        .base_num_examples = 500,
        .method = static_cast<int64_t>(method.formula),
        .delta = 0, // coordinates without any Fisher are a case of their own
        .clamp = 0.1,
        .floor = 1e-10};
    if (method.needs_base) {
      merge.base = base;
    }
    if (method.needs_base_fisher) {
      merge.base_fisher = base_fisher;
    }
    if (method.needs_fishers) {
      merge.fishers = fishers;
      merge.num_examples = num_examples;
    }
    return function(merge);
  }
};

TEST(Merge, HasTheBitsOfItsDefinition) {
  for (int f = 0; f <= static_cast<int>(kLastOpFormula); ++f) {
    const MethodInfo& method = method_of(static_cast<MergeFormula>(f));
    for_all_sizes([&](at::ScalarType in, at::ScalarType, int64_t n) {
      SCOPED_TRACE(method.name);
      for (const int64_t count : {1, 3}) {
        const MergeCase given(n, count, in);
        EXPECT_TRUE(same_bits(
            given.run(merge, method), given.run(merge_reference, method)));
      }
    });
  }
}

TEST(Merge, TakesRhos) {
  const MethodInfo& method = method_of(MergeFormula::kGradientMatching);
  MergeCase given(1000, 3, at::kFloat);
  const at::Tensor plain = given.run(merge, method);
  given.rhos = {1, 1, 1};
  EXPECT_TRUE(same_bits(given.run(merge, method), plain));
  given.rhos = {0, 0.3, -0.2};
  const at::Tensor merged = given.run(merge, method);
  EXPECT_FALSE(same_bits(merged, plain));
  EXPECT_TRUE(same_bits(merged, given.run(merge_reference, method)));
}

TEST(Merge, TakesManyModels) {
  const MergeCase given(1000, 40, at::kBFloat16);
  const MethodInfo& method = method_of(MergeFormula::kGradientMatching);
  EXPECT_TRUE(
      same_bits(given.run(merge, method), given.run(merge_reference, method)));
}

TEST(Merge, MixesTypes) {
  MergeCase given(1000, 3, at::kFloat);
  given.models[1] = given.models[1].to(at::kBFloat16);
  given.models[2] = given.models[2].to(at::kHalf);
  given.fishers[0] = given.fishers[0].to(at::kDouble);
  const MethodInfo& method = method_of(MergeFormula::kFisher);
  const at::Tensor merged = given.run(merge, method);
  EXPECT_EQ(merged.scalar_type(), at::kFloat); // of the first model
  EXPECT_TRUE(same_bits(merged, given.run(merge_reference, method)));
}

} // namespace
} // namespace merganser::ops
