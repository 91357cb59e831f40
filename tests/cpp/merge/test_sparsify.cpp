// sparsify against definitions that see the whole tensor at once.

#include "merganser/merge/sparsify.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "memory_plan.h"
#include "merganser/merge/measure_tensor.h"
#include "merganser/numeric/philox.h"

namespace merganser::test {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Shapes whose rows are shorter than a chunk (some rows lie in two chunks), as
// long, and longer; rows of one element, one row, and no elements.
const std::vector<std::vector<int64_t>> kShapes = {
    {130, 300},
    {2, kChunkElements},
    {3, 40000},
    {kChunkElements + 5, 1},
    {4, 5, 6},
    {70001},
    {1},
    {0, 3}};

int64_t count(const std::vector<int64_t>& shape) {
  return TensorInfo{"", DType::kF32, shape}.numel();
}

// Multiples of 2^-6 in [-2, 2], exact in every type: many magnitudes are equal.
std::vector<double> numbers(int64_t n, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<double> values(n);
  for (double& x : values) {
    x = (static_cast<double>(random() % 257) - 128) / 64;
  }
  return values;
}

struct Inputs {
  std::vector<double> base;
  std::vector<std::vector<double>> models;

  explicit Inputs(int64_t n)
      : base(numbers(n, 1)), models{numbers(n, 2), numbers(n, 3)} {}

  std::vector<double> task_vector(size_t model) const {
    std::vector<double> tau(base.size());
    for (size_t i = 0; i < tau.size(); ++i) {
      tau[i] = models[model][i] - base[i];
    }
    return tau;
  }
};

struct Result {
  std::vector<double> values;
  bool finite = true;
};

// Sparsifies a model's task vector as a merge does: statistics, then chunk by
// chunk.
template <typename T>
Result run(
    std::string_view method,
    const std::vector<int64_t>& shape,
    const Inputs& inputs,
    const TensorParameters& parameters,
    size_t model,
    int threads = 3) {
  const auto narrow = [](const std::vector<double>& values) {
    return std::vector<T>(values.begin(), values.end());
  };
  MemoryPlan memory(method, shape, sizeof(T) == 4 ? DType::kF32 : DType::kF64);
  const std::vector<T> base = narrow(inputs.base);
  const std::vector<T> theta = narrow(inputs.models[model]);
  memory.add_source("base", base);
  for (const auto& values : inputs.models) {
    memory.add_source("model", narrow(values));
  }
  memory.plan.num_models = inputs.models.size();
  memory.plan.parameters = {parameters};
  const TensorStatistics statistics = measure_tensor(memory.plan, 0, threads);
  const auto n = std::ssize(base);
  std::vector<T> out(n);
  Result result;
  for (int64_t i = 0; i < chunk_count(n); ++i) {
    const Chunk chunk = chunk_at(n, i);
    result.finite &= sparsify<T>(
        memory.plan,
        chunk,
        {.model = model, .output = 0, .statistics = statistics},
        base.data() + chunk.begin,
        theta.data() + chunk.begin,
        out.data() + chunk.begin);
  }
  result.values.assign(out.begin(), out.end());
  return result;
}

TensorParameters parameters(double density) {
  TensorParameters p;
  p.density = {density, density / 2};
  p.gamma = {0.1, 0.02};
  p.epsilon = {0, 0};
  p.seed = 42;
  return p;
}

// Expects exactly the elements that keep(i) names, unchanged, in both types
// and for every number of threads.
template <typename Keep>
void expect_kept(
    std::string_view method,
    const std::vector<int64_t>& shape,
    const TensorParameters& p,
    size_t model,
    const Keep& keep) {
  const Inputs inputs(count(shape));
  std::vector<double> expected = inputs.task_vector(model);
  for (size_t i = 0; i < expected.size(); ++i) {
    expected[i] = keep(i) ? expected[i] : 0;
  }
  const auto compare = [&](const Result& found, const char* type) {
    EXPECT_TRUE(found.finite);
    ASSERT_EQ(found.values.size(), expected.size());
    for (size_t i = 0; i < expected.size(); ++i) {
      ASSERT_EQ(found.values[i], expected[i])
          << method << ", " << type << ", density " << p.density[model]
          << ", element " << i << " of "
          << TensorInfo{"", DType::kF32, shape}.shape_text();
    }
  };
  for (const int threads : {1, 3}) {
    compare(run<float>(method, shape, inputs, p, model, threads), "float");
    compare(run<double>(method, shape, inputs, p, model, threads), "double");
  }
}

std::vector<double> sorted_magnitudes(const std::vector<double>& values) {
  std::vector<double> sorted;
  for (const double x : values) {
    sorted.push_back(std::abs(x));
  }
  std::ranges::sort(sorted);
  return sorted;
}

// Keeps the density n largest magnitudes, at least one, and all equal ones.
TEST(Sparsify, KeepsTheLargestMagnitudes) {
  for (const auto& shape : kShapes) {
    for (const double density : {1e-9, 0.3, 0.999}) {
      for (const size_t model : {0, 1}) {
        const TensorParameters p = parameters(density);
        const auto tau = Inputs(count(shape)).task_vector(model);
        const auto sorted = sorted_magnitudes(tau);
        const auto n = static_cast<double>(tau.size());
        const auto kept =
            std::max<int64_t>(1, static_cast<int64_t>(p.density[model] * n));
        expect_kept("ties", shape, p, model, [&](size_t i) {
          return std::abs(tau[i]) >= sorted[sorted.size() - kept];
        });
      }
    }
  }
}

// Keeps density n magnitudes below the gamma n largest.
TEST(Sparsify, KeepsMagnitudesBelowTheOutliers) {
  for (const auto& shape : kShapes) {
    for (const double density : {0.3, 0.95}) {
      for (const size_t model : {0, 1}) {
        const TensorParameters p = parameters(density);
        const auto tau = Inputs(count(shape)).task_vector(model);
        const auto sorted = sorted_magnitudes(tau);
        const auto n = static_cast<double>(tau.size());
        const auto kept = static_cast<int64_t>(p.density[model] * n);
        const auto outliers = static_cast<int64_t>(p.gamma[model] * n);
        const int64_t first =
            std::max<int64_t>(0, std::ssize(sorted) - kept - outliers);
        expect_kept("breadcrumbs", shape, p, model, [&](size_t i) {
          return kept > 0 && std::abs(tau[i]) >= sorted[first] &&
              std::abs(tau[i]) <= sorted[first + kept - 1];
        });
      }
    }
  }
}

// Returns the number in [0, 1) that decides about an element: 24 of the bits
// that Philox computes from the seed, the tensor's name and the model.
double drawn(const TensorParameters& p, size_t model, uint64_t element) {
  const std::string name = "layer.weight";
  const uint64_t stream =
      hash_bytes(std::as_bytes(std::span(name))).low + model;
  const PhiloxBlock block =
      philox(static_cast<uint64_t>(p.seed), stream, element / 4);
  return (block.word[element % 4] >> 8) / 16777216.0;
}

TEST(Sparsify, KeepsElementsAtRandom) {
  for (const auto& shape : kShapes) {
    for (const double density : {0.3, 0.95}) {
      for (const size_t model : {0, 1}) {
        const TensorParameters p = parameters(density);
        size_t kept = 0;
        expect_kept("dare_linear", shape, p, model, [&](size_t i) {
          const bool keep =
              drawn(p, model, i) < static_cast<float>(p.density[model]);
          kept += keep;
          return keep;
        });
        const auto n = static_cast<double>(count(shape));
        EXPECT_NEAR(
            static_cast<double>(kept), p.density[model] * n, 4 * std::sqrt(n));
      }
    }
  }
}

// Returns each element's rank in its row; of equal magnitudes, the later ranks
// higher.
std::vector<int64_t> ranks(const std::vector<double>& tau, int64_t length) {
  std::vector<int64_t> ranks(tau.size());
  for (int64_t row = 0; row < std::ssize(tau); row += length) {
    std::vector<int64_t> order;
    for (int64_t i = row; i < row + length; ++i) {
      order.push_back(i);
    }
    std::ranges::stable_sort(
        order, {}, [&](int64_t i) { return std::abs(tau[i]); });
    for (int64_t rank = 0; rank < length; ++rank) {
      ranks[order[rank]] = rank;
    }
  }
  return ranks;
}

TEST(Sparsify, KeepsLargeElementsOfARowMoreOften) {
  for (const auto& shape : kShapes) {
    for (const double density : {0.3, 0.9}) {
      for (const size_t model : {0, 1}) {
        TensorParameters p = parameters(density);
        p.epsilon = {0.1, 0.15};
        const auto tau = Inputs(count(shape)).task_vector(model);
        const int64_t length = shape.size() == 1 ? shape[0]
            : shape[0] == 0                      ? 0
                                                 : std::ssize(tau) / shape[0];
        const auto rank = ranks(tau, std::max<int64_t>(length, 1));
        expect_kept("della_linear", shape, p, model, [&](size_t i) {
          const double share = length == 1
              ? 0
              : static_cast<double>(rank[i]) / static_cast<double>(length - 1);
          const double chance = p.density[model] - p.epsilon[model] +
              share * 2 * p.epsilon[model];
          return drawn(p, model, i) < static_cast<float>(chance);
        });
      }
    }
  }
}

TEST(Sparsify, KeepsAllOrNothing) {
  for (const char* method :
       {"ties", "breadcrumbs", "dare_linear", "della_linear"}) {
    for (const auto& shape : kShapes) {
      TensorParameters p = parameters(0);
      p.epsilon = {0.5, 0.5};
      expect_kept(method, shape, p, 0, [](size_t) { return false; });
      p.density = {1, 1};
      expect_kept(method, shape, p, 0, [](size_t) { return true; });
    }
  }
}

// `rescale`: what is kept has the task vector's sum of magnitudes.
TEST(Sparsify, ScalesWhatItKeeps) {
  for (const char* method :
       {"ties", "breadcrumbs", "dare_linear", "della_linear"}) {
    for (const std::vector<int64_t>& shape : {kShapes[0], kShapes[2]}) {
      const Inputs inputs(count(shape));
      TensorParameters p = parameters(0.4);
      const auto plain = run<double>(method, shape, inputs, p, 0).values;
      p.rescale = 1;
      const auto sum = [](const std::vector<double>& values) {
        double total = 0;
        for (const double x : values) {
          total += std::abs(x);
        }
        return total;
      };
      const double factor = sum(inputs.task_vector(0)) / sum(plain);
      EXPECT_GT(factor, 1);
      const auto wide = run<double>(method, shape, inputs, p, 0).values;
      const auto narrow = run<float>(method, shape, inputs, p, 0).values;
      for (size_t i = 0; i < plain.size(); ++i) {
        ASSERT_DOUBLE_EQ(wide[i], factor * plain[i]) << method;
        ASSERT_FLOAT_EQ(
            static_cast<float>(narrow[i]),
            static_cast<float>(factor * plain[i]))
            << method;
      }
    }
  }
}

// The caller refuses such values, even if they are dropped.
TEST(Sparsify, ReportsValuesThatAreNotFinite) {
  for (const char* method :
       {"ties", "breadcrumbs", "dare_linear", "della_linear"}) {
    for (const std::vector<int64_t>& shape : {kShapes[0], kShapes[2]}) {
      for (const double bad : {kNan, kInfinity}) {
        for (const double density : {0.0, 0.5, 1.0}) {
          Inputs inputs(count(shape));
          inputs.models[0][20000] = bad;
          const TensorParameters p = parameters(density);
          EXPECT_FALSE(run<float>(method, shape, inputs, p, 0).finite);
          EXPECT_FALSE(run<double>(method, shape, inputs, p, 0).finite);
          EXPECT_TRUE(run<float>(method, shape, inputs, p, 1).finite);
        }
      }
    }
  }
}

TEST(Sparsify, DropsNanAtRandom) {
  const std::vector<int64_t> shape = {40000};
  const TensorParameters p = parameters(0.5);
  Inputs inputs(count(shape));
  for (size_t i = 0; i < 40000; i += 7) {
    inputs.models[0][i] = kNan;
  }
  for (const char* method : {"dare_linear", "della_linear"}) {
    const auto found = run<float>(method, shape, inputs, p, 0).values;
    for (size_t i = 0; i < 40000; i += 7) {
      if (drawn(p, 0, i) < 0.5) {
        EXPECT_TRUE(std::isnan(found[i])) << method << ", element " << i;
      } else {
        EXPECT_EQ(found[i], 0) << method << ", element " << i;
      }
    }
  }
}

} // namespace
} // namespace merganser::test
