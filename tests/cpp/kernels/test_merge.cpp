// merge compared with the CPU's merge_elements, bit for bit: every formula,
// every mix of types, numbers of models up to the limit. Both compile one
// formula, so that it is also compared with its definition.

#include <algorithm>
#include <variant>
#include <vector>

#include "arrays.h"
#include "merganser/kernels/kernels.h"
#include "merganser/merge/merge_elements.h"
#include "support/merge_oracle.h"

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

// True for the formulas that use Fishers, and for those that use the base.
bool uses_fishers(MergeFormula formula) {
  return formula >= MergeFormula::kFisher && formula <= MergeFormula::kEwr;
}
bool uses_base(MergeFormula formula) {
  return formula != MergeFormula::kLinear && formula != MergeFormula::kFisher;
}

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
  std::vector<Input<T>> models, fishers;
  MergeArguments<T> a{};
  std::vector<const T*> model_values, fisher_values;
  for (int t = 0; t < c.count; ++t) {
    models.emplace_back(
        c.types[t % c.types.size()], c.n, t == 0 ? c.offset : 0, t + 1, -1, 1);
    a.models[t] = models[t].source();
    a.weights[t] = T(0.25) * static_cast<T>(t + 1);
    a.rhos[t] = T(0.5) * static_cast<T>(t);
    if (uses_fishers(c.formula)) {
      fishers.emplace_back(c.fisher_type, c.n, 0, 50 + t, 0, 1e-3);
      a.fishers[t] = fishers[t].source();
      a.scales[t] = T(10) * static_cast<T>(t + 1);
    }
  }
  for (int t = 0; t < c.count; ++t) {
    model_values.push_back(models[t].values.data());
    fisher_values.push_back(
        uses_fishers(c.formula) ? fishers[t].values.data() : nullptr);
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
  if (uses_base(c.formula)) {
    a.base = base.source();
    arrays.base = base.values.data();
    if (uses_fishers(c.formula)) {
      a.base_fisher = base_fisher.source();
      arrays.base_fisher = base_fisher.values.data();
    }
  }
  std::vector<T> expected(c.n);
  arrays.out = expected.data();
  MergeScalars<T> scalars = a.scalars;
  scalars.weights = a.weights;
  scalars.scales = a.scales;
  scalars.rhos = a.rhos;
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

template <typename T>
Array<T> array_of(const test::Vector& values) {
  Array<T> array(std::ssize(values));
  std::copy(std::begin(values), std::end(values), array.data());
  return array;
}

template <typename T>
void compare_with_definition(MergeFormula formula, int64_t n, int count) {
  test::Problem p = test::random_problem(n, count);
  for (int t = 0; t < count; ++t) {
    p.rhos.push_back(0.5 * t);
  }
  const Type type = sizeof(T) == 4 ? Type::kFloat : Type::kDouble;
  std::vector<Array<T>> inputs;
  const auto source = [&](const test::Vector& values) {
    inputs.push_back(array_of<T>(values));
    return Source{inputs.back().data(), type};
  };
  MergeArguments<T> a{};
  for (int t = 0; t < count; ++t) {
    a.models[t] = source(p.models[t]);
    a.weights[t] = static_cast<T>(p.weights[t]);
    a.rhos[t] = static_cast<T>(p.rhos[t]);
    if (uses_fishers(formula)) {
      a.fishers[t] = source(p.fishers[t]);
      a.scales[t] = static_cast<T>(p.scales[t]);
    }
  }
  if (uses_base(formula)) {
    a.base = source(p.base);
    a.base_fisher =
        uses_fishers(formula) ? source(p.base_fisher) : Source{nullptr, type};
  }
  a.scalars.count = count;
  a.scalars.base_scale = static_cast<T>(p.base_scale);
  a.scalars.delta = static_cast<T>(p.delta);
  a.scalars.clamp = static_cast<T>(p.clamp);
  a.scalars.floor = static_cast<T>(p.floor);
  a.scalars.lambda = static_cast<T>(p.lambda);
  a.scalars.normalize = p.normalize;
  a.n = n;
  Array<T> out(n);
  a.out = out.data();
  a.out_type = type;
  launch_merge(formula, a, nullptr);
  const test::Vector expected = test::oracle(formula, p);
  const double tolerance = sizeof(T) == 4 ? 1e-5 : 1e-7;
  for (int64_t i = 0; i < n; ++i) {
    ASSERT_NEAR(out[i], expected[i], tolerance * (1 + std::abs(expected[i])))
        << "formula " << static_cast<int>(formula) << ", " << count
        << " models, element " << i << " of " << n;
  }
}

TEST(Merge, EqualsTheDefinition) {
  for (int formula = 0; formula <= test::kLastFormula; ++formula) {
    for (const int count : {1, 3, 5}) {
      const auto f = static_cast<MergeFormula>(formula);
      compare_with_definition<float>(f, 1027, count);
      compare_with_definition<double>(f, 1027, count);
    }
  }
}

TEST(Merge, EqualsTheCpu) {
  for (int formula = 0; formula <= test::kLastFormula; ++formula) {
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
