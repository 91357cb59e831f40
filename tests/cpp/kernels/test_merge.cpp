// merge compared with the CPU's merge_elements, bit for bit: every formula,
// every mix of types, numbers of models up to the limit.

#include <algorithm>
#include <variant>
#include <vector>

#include "arrays.h"
#include "merganser/kernels/kernels.h"
#include "merganser/merge/merge_elements.h"

namespace merganser::kernels {
namespace {

using AnyArray = std::
    variant<Array<float>, Array<__nv_bfloat16>, Array<__half>, Array<double>>;

AnyArray random_array(
    Type type,
    int64_t n,
    int offset,
    int seed,
    double min,
    double max) {
  switch (type) {
    case Type::kBFloat16:
      return random_numbers<__nv_bfloat16>(n, offset, seed, min, max);
    case Type::kHalf:
      return random_numbers<__half>(n, offset, seed, min, max);
    case Type::kDouble:
      return random_numbers<double>(n, offset, seed, min, max);
    case Type::kFloat:
      break;
  }
  return random_numbers<float>(n, offset, seed, min, max);
}

// One source for the kernel, and widened for the CPU.
template <typename T>
struct Input {
  Input(Type type, int64_t n, int offset, int seed, double min, double max)
      : type(type),
        array(random_array(type, n, offset, seed, min, max)),
        values(n) {
    std::visit(
        [&](auto& numbers) {
          const double special[] = {NAN, INFINITY, 0, -0.0};
          for (int64_t i = 0; i < 4 && 11 * i + seed < n; ++i) {
            numbers[11 * i + seed] =
                static_cast<std::remove_cvref_t<decltype(numbers[0])>>(
                    special[i]);
          }
          std::transform(
              numbers.begin(), numbers.end(), values.begin(), [](auto x) {
                return static_cast<T>(to_double(x));
              });
        },
        array);
  }

  Source source() {
    return {std::visit([](auto& x) -> void* { return x.data(); }, array), type};
  }

  Type type;
  AnyArray array;
  std::vector<T> values;
};

struct Case {
  MergeFormula formula;
  int count;
  int64_t n;
  int offset; // of the first model
  std::vector<Type> types; // of the models in turn; the first is the result's
  Type fisher_type;
};

template <typename T>
void compare(const Case& c) {
  SCOPED_TRACE(
      testing::Message() << "formula " << static_cast<int>(c.formula) << ", "
                         << c.count << " models, " << c.n
                         << " elements, offset " << c.offset);
  const bool uses_fishers =
      c.formula >= MergeFormula::kFisher && c.formula <= MergeFormula::kEwr;
  const bool uses_base =
      c.formula != MergeFormula::kLinear && c.formula != MergeFormula::kFisher;
  std::vector<Input<T>> models, fishers;
  MergeArguments<T> a{};
  std::vector<const T*> model_values, fisher_values;
  for (int t = 0; t < c.count; ++t) {
    models.emplace_back(
        c.types[t % c.types.size()], c.n, t == 0 ? c.offset : 0, t + 1, -1, 1);
    a.models[t] = models[t].source();
    a.weights[t] = T(0.25) * static_cast<T>(t + 1);
    if (uses_fishers) {
      fishers.emplace_back(c.fisher_type, c.n, 0, 50 + t, 0, 1e-3);
      a.fishers[t] = fishers[t].source();
      a.scales[t] = T(10) * static_cast<T>(t + 1);
    }
  }
  for (int t = 0; t < c.count; ++t) {
    model_values.push_back(models[t].values.data());
    fisher_values.push_back(uses_fishers ? fishers[t].values.data() : nullptr);
  }
  Input<T> base(c.types.back(), c.n, 0, 0, -1, 1);
  Input<T> base_fisher(c.fisher_type, c.n, 0, 100, 0, 1e-3);
  a.scalars.count = c.count;
  a.scalars.base_scale = T(100);
  a.scalars.delta = T(1e-12);
  a.scalars.clamp = T(0.05);
  a.scalars.floor = T(1e-4);
  a.scalars.lambda = T(0.75);
  a.scalars.normalize = c.n % 2 == 0;
  a.n = c.n;
  MergeArrays<T> arrays{
      .models = model_values.data(), .fishers = fisher_values.data()};
  if (uses_base) {
    a.base = base.source();
    arrays.base = base.values.data();
    if (uses_fishers) {
      a.base_fisher = base_fisher.source();
      arrays.base_fisher = base_fisher.values.data();
    }
  }
  std::vector<T> expected(c.n);
  arrays.out = expected.data();
  MergeScalars<T> scalars = a.scalars;
  scalars.weights = a.weights;
  scalars.scales = a.scales;
  merge_elements(c.formula, scalars, arrays, c.n);

  AnyArray out = random_array(c.types[0], c.n, 0, 0, 0, 1);
  a.out_type = c.types[0];
  std::visit(
      [&](auto& found) {
        using E = std::remove_cvref_t<decltype(found[0])>;
        using From = std::conditional_t<sizeof(E) == 2, float, E>;
        a.out = found.data();
        launch_merge(c.formula, a, nullptr);
        Array<E> rounded(c.n);
        std::transform(
            expected.begin(), expected.end(), rounded.data(), [](T x) {
              return static_cast<E>(static_cast<From>(x));
            });
        expect_same_bits(found, rounded);
      },
      out);
}

constexpr Type kF = Type::kFloat, kB = Type::kBFloat16, kH = Type::kHalf,
               kD = Type::kDouble;

TEST(Merge, EqualsTheCpu) {
  const auto last = static_cast<int>(MergeFormula::kSignElection);
  for (int formula = 0; formula <= last; ++formula) {
    const auto f = static_cast<MergeFormula>(formula);
    for (const int64_t n : {0, 1, 7, 8, 1027, 3000}) {
      for (const int offset : {0, 1}) {
        compare<float>({f, 3, n, offset, {kF}, kF});
        compare<float>({f, 3, n, offset, {kB, kF, kH}, kF});
        compare<float>({f, 3, n, offset, {kB, kH}, kB});
        compare<double>({f, 2, n, offset, {kD}, kD});
        compare<double>({f, 3, n, offset, {kH, kD, kB}, kF});
      }
    }
  }
}

TEST(Merge, TakesUpToTheMostModels) {
  for (const int count : {1, 11, kMaxMergeModels}) {
    compare<float>({MergeFormula::kLinear, count, 517, 0, {kH, kF}, kF});
    compare<float>(
        {MergeFormula::kGradientMatching, count, 517, 0, {kF, kB}, kF});
    compare<double>({MergeFormula::kFisher, count, 517, 0, {kD}, kD});
  }
}

} // namespace
} // namespace merganser::kernels
