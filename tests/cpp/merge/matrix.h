#pragma once

#include <array>
#include <cmath>
#include <optional>

namespace merganser::test {

// A symmetric or general N x N matrix with just the operations that
// merge_element requires of its scalar: with it, the formulas run with full
// curvature matrices instead of diagonals. A vector is the first column of a
// matrix. a / b is b^-1 a.
template <int N>
struct Matrix {
  std::array<std::array<double, N>, N> a{};

  Matrix() = default;
  Matrix(double diagonal) { // implicit, as numbers convert to float
    for (int i = 0; i < N; ++i) {
      a[i][i] = diagonal;
    }
  }

  Matrix& operator+=(const Matrix& other) {
    return *this = *this + other;
  }
  friend Matrix operator+(Matrix x, const Matrix& y) {
    for (int i = 0; i < N; ++i) {
      for (int j = 0; j < N; ++j) {
        x.a[i][j] += y.a[i][j];
      }
    }
    return x;
  }
  friend Matrix operator-(const Matrix& x, const Matrix& y) {
    return x + Matrix(-1) * y;
  }
  friend Matrix operator*(const Matrix& x, const Matrix& y) {
    Matrix product;
    for (int i = 0; i < N; ++i) {
      for (int j = 0; j < N; ++j) {
        for (int k = 0; k < N; ++k) {
          product.a[i][j] += x.a[i][k] * y.a[k][j];
        }
      }
    }
    return product;
  }
  friend bool operator==(const Matrix& x, const Matrix& y) {
    return x.a == y.a;
  }
  // x - y is not positive definite.
  friend bool operator<(const Matrix& x, const Matrix& y) {
    return !cholesky(x - y);
  }
  friend Matrix operator/(const Matrix& x, const Matrix& y) {
    return solve(y, x);
  }

  // The lower triangle L of x = L L^T, if x is positive definite.
  static std::optional<Matrix> cholesky(const Matrix& x) {
    Matrix l;
    for (int i = 0; i < N; ++i) {
      for (int j = 0; j <= i; ++j) {
        double sum = x.a[i][j];
        for (int k = 0; k < j; ++k) {
          sum -= l.a[i][k] * l.a[j][k];
        }
        if (i == j && sum <= 0) {
          return std::nullopt;
        }
        l.a[i][j] = i == j ? std::sqrt(sum) : sum / l.a[j][j];
      }
    }
    return l;
  }

  // x^-1 y for a positive definite x.
  static Matrix solve(const Matrix& x, Matrix y) {
    const Matrix l = cholesky(x).value();
    for (int column = 0; column < N; ++column) {
      for (int i = 0; i < N; ++i) { // L z = y
        for (int k = 0; k < i; ++k) {
          y.a[i][column] -= l.a[i][k] * y.a[k][column];
        }
        y.a[i][column] /= l.a[i][i];
      }
      for (int i = N - 1; i >= 0; --i) { // L^T x = z
        for (int k = i + 1; k < N; ++k) {
          y.a[i][column] -= l.a[k][i] * y.a[k][column];
        }
        y.a[i][column] /= l.a[i][i];
      }
    }
    return y;
  }
};

} // namespace merganser::test
