// merge_task_vectors by what defines its results: the polar factor is the only
// matrix U with U U^T = 1 and a symmetric positive semidefinite U^T A.

#include "merganser/merge/spectral.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <numeric>
#include <random>

#include "memory_plan.h"
#include "support/expect_error.h"

namespace merganser::test {
namespace {

using Numbers = std::vector<double>; // row-major

struct Tasks {
  int64_t rows;
  int64_t columns;
  Numbers base;
  std::vector<Numbers> task_vectors;

  Tasks(int64_t rows, int64_t columns, int count)
      : rows(rows), columns(columns), base(rows * columns) {
    std::mt19937 random(static_cast<unsigned>(rows + 10 * columns + count));
    std::normal_distribution<double> normal;
    for (double& x : base) {
      x = normal(random);
    }
    for (int t = 0; t < count; ++t) {
      task_vectors.emplace_back(base.size());
      for (double& x : task_vectors.back()) {
        x = normal(random);
      }
    }
  }

  Numbers merge(std::string_view method, int threads = 2) const {
    MemoryPlan memory(method, {rows, columns});
    memory.add_source("base", base);
    for (const Numbers& tau : task_vectors) {
      Numbers model = base;
      for (size_t i = 0; i < model.size(); ++i) {
        model[i] += tau[i];
      }
      memory.add_source("model", model);
    }
    memory.plan.num_models = task_vectors.size();
    memory.plan.spectral = true;
    return merge_task_vectors(memory.plan, threads);
  }
};

// x y^T, with rows of length n.
Numbers times_transposed(const Numbers& x, const Numbers& y, int64_t n) {
  Numbers product;
  for (size_t i = 0; i < x.size(); i += n) {
    for (size_t j = 0; j < y.size(); j += n) {
      product.push_back(std::inner_product(&x[i], &x[i] + n, &y[j], 0.0));
    }
  }
  return product;
}

Numbers transposed(const Numbers& x, int64_t rows, int64_t columns) {
  Numbers result;
  for (int64_t j = 0; j < columns; ++j) {
    for (int64_t i = 0; i < rows; ++i) {
      result.push_back(x[i * columns + j]);
    }
  }
  return result;
}

void expect_elements(const Numbers& found, const Numbers& expected) {
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) {
    EXPECT_NEAR(found[i], expected[i], 1e-8);
  }
}

// All singular values are their mean, and the directions are those of the sum.
TEST(IsoC, IsTheScaledPolarFactorOfTheSum) {
  for (const auto& [rows, columns] : {std::pair{4, 7}, {7, 4}, {5, 5}}) {
    SCOPED_TRACE(rows);
    const Tasks tasks(rows, columns, 3);
    Numbers sum(tasks.base.size());
    for (const Numbers& tau : tasks.task_vectors) {
      std::ranges::transform(sum, tau, sum.begin(), std::plus());
    }
    Numbers merged = tasks.merge("iso_c");
    const int64_t n = std::min(rows, columns);
    if (rows > columns) {
      merged = transposed(merged, rows, columns);
      sum = transposed(sum, rows, columns);
    }
    const int64_t length = std::max(rows, columns);
    const Numbers squares = times_transposed(merged, merged, length);
    const Numbers overlap = times_transposed(merged, sum, length);
    double square = 0; // of the mean c: overlap = c U A^T has the trace n c^2
    for (int64_t i = 0; i < n; ++i) {
      square += overlap[i * n + i] / static_cast<double>(n);
      EXPECT_GT(overlap[i * n + i], 0);
      for (int64_t j = 0; j < n; ++j) {
        EXPECT_NEAR(overlap[i * n + j], overlap[j * n + i], 1e-8);
      }
    }
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        EXPECT_NEAR(squares[i * n + j], i == j ? square : 0, 1e-8);
      }
    }
  }
}

TEST(TsvM, ReturnsASingleTask) {
  for (const auto& [rows, columns] : {std::pair{4, 7}, {7, 4}}) {
    const Tasks one(rows, columns, 1);
    expect_elements(one.merge("tsv_m"), one.task_vectors[0]);
  }
}

// Tasks of rank one whose rows and columns do not meet do not interfere.
TEST(TsvM, AddsTasksThatAreOrthogonal) {
  Tasks tasks(4, 6, 2);
  for (Numbers& tau : tasks.task_vectors) {
    std::ranges::fill(tau, 0);
  }
  tasks.task_vectors[0][0] = 3;
  tasks.task_vectors[0][1] = 4;
  tasks.task_vectors[1][2 * 6 + 4] = -2;
  Numbers sum = tasks.task_vectors[0];
  sum[2 * 6 + 4] = -2;
  expect_elements(tasks.merge("tsv_m"), sum);
}

TEST(Spectral, BitsDoNotDependOnThreads) {
  const Tasks tasks(9, 13, 3);
  for (const char* method : {"tsv_m", "iso_c"}) {
    EXPECT_EQ(tasks.merge(method, 1), tasks.merge(method, 3));
  }
}

TEST(Spectral, TaskVectorsOfZeroAreNoDisplacement) {
  Tasks tasks(3, 4, 2);
  for (Numbers& tau : tasks.task_vectors) {
    std::ranges::fill(tau, 0);
  }
  for (const char* method : {"tsv_m", "iso_c"}) {
    expect_elements(tasks.merge(method), Numbers(12));
  }
}

TEST(Spectral, RejectsValuesThatAreNotFinite) {
  Tasks tasks(3, 4, 2);
  tasks.task_vectors[1][5] = std::numeric_limits<double>::quiet_NaN();
  for (const char* method : {"tsv_m", "iso_c"}) {
    expect_error<InputError>(
        [&] { tasks.merge(method); }, {"layer.weight", "nan"});
  }
}

} // namespace
} // namespace merganser::test
