// Sums of squares per example compared with their definitions in float64:
// biases, LayerNorms and embeddings.

#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <vector>

#include "arrays.h"
#include "merganser/kernels/kernels.h"

namespace merganser::kernels {
namespace {

template <typename In>
class PerExample : public testing::Test {};
TYPED_TEST_SUITE(PerExample, InputTypes);

template <typename T>
constexpr double kTolerance = sizeof(T) == 4 ? 1e-5 : 1e-12;

// (B, L, C): widths around the packs of a row of threads, and without packs.
constexpr int64_t kShapes[][3] = {
    {0, 3, 8},
    {1, 1, 1},
    {2, 0, 8},
    {3, 1, 16},
    {2, 17, 33},
    {3, 33, 136},
    {2, 5, 264}};

TYPED_TEST(PerExample, TokenSums) {
  using T = Accumulator<TypeParam>;
  for (const auto& [examples, tokens, channels] : kShapes) {
    for (const int offset : {0, 1}) {
      for (const bool normalize : {false, true}) {
        const int64_t n = examples * tokens * channels;
        const auto d = random_numbers<TypeParam>(n, offset, 0);
        const auto x = random_numbers<TypeParam>(n, 0, 1);
        Array<double> expected(channels);
        for (int64_t i = 0; i < examples; ++i) {
          for (int64_t c = 0; c < channels; ++c) {
            double sum = 0;
            for (int64_t l = 0; l < tokens; ++l) {
              const int64_t k = (i * tokens + l) * channels + c;
              sum += to_double(d[k]) * (normalize ? to_double(x[k]) : 1);
            }
            expected[c] += sum * sum * 0.25;
          }
        }
        in_both_orders(
            [&, examples = examples, tokens = tokens, channels = channels] {
              Array<T> squares(examples * channels), fisher(channels);
              launch_token_sum_squares(
                  d.data(),
                  normalize ? x.data() : nullptr,
                  squares.data(),
                  examples,
                  tokens,
                  channels,
                  nullptr);
              launch_add_examples(
                  squares.data(),
                  fisher.data(),
                  examples,
                  channels,
                  T(0.25),
                  nullptr);
              expect_near(fisher, expected, kTolerance<T>);
            });
      }
    }
  }
}

// ids by place; one token everywhere, one in every second place, others rare.
std::vector<int64_t> make_ids(int64_t count, int64_t rows) {
  std::vector<int64_t> ids(count);
  for (int64_t k = 0; k < count; ++k) {
    ids[k] = k % 2 == 0 ? 1 : k * k % rows;
  }
  return ids;
}

template <typename In>
struct Embedding {
  using T = Accumulator<In>;

  Embedding(
      int64_t examples,
      int64_t tokens,
      int64_t channels,
      int offset,
      std::vector<int64_t> by_place)
      : tokens(tokens),
        channels(channels),
        by_place(by_place),
        ids(examples * tokens),
        places(examples * tokens),
        grad(random_numbers<In>(ids.size() * channels, offset, 0)),
        fisher(kRows * channels) {
    std::iota(places.data(), places.data() + places.size(), int64_t{0});
    std::stable_sort(
        places.data(),
        places.data() + places.size(),
        [&](int64_t a, int64_t b) { return by_place[a] < by_place[b]; });
    for (int64_t k = 0; k < ids.size(); ++k) {
      ids[k] = by_place[places[k]];
    }
  }

  void launch(int64_t padding_idx) {
    launch_embedding_square_accumulate(
        ids.data(),
        places.data(),
        grad.data(),
        fisher.data(),
        ids.size(),
        tokens,
        kRows,
        channels,
        padding_idx,
        T(0.25),
        nullptr);
  }

  Array<double> expected(int64_t padding_idx) const {
    Array<double> total(kRows * channels);
    for (int64_t i = 0; i < ids.size(); i += tokens) {
      Array<double> sums(kRows * channels);
      for (int64_t k = i * channels; k < (i + tokens) * channels; ++k) {
        sums[by_place[k / channels] * channels + k % channels] +=
            to_double(grad[k]);
      }
      for (int64_t k = 0; k < total.size(); ++k) {
        total[k] += k / channels == padding_idx ? 0 : sums[k] * sums[k] * 0.25;
      }
    }
    return total;
  }

  static constexpr int64_t kRows = 7;
  int64_t tokens, channels;
  std::vector<int64_t> by_place;
  Array<int64_t> ids, places;
  Array<In> grad;
  Array<T> fisher;
};

TYPED_TEST(PerExample, Embedding) {
  using T = Accumulator<TypeParam>;
  for (const auto& [examples, tokens, channels] : kShapes) {
    for (const int64_t padding_idx : {-1, 2}) {
      for (const int offset : {0, 1}) {
        in_both_orders(
            [&, examples = examples, tokens = tokens, channels = channels] {
              Embedding<TypeParam> embedding(
                  examples,
                  tokens,
                  channels,
                  offset,
                  make_ids(examples * tokens, Embedding<TypeParam>::kRows));
              embedding.launch(padding_idx);
              expect_near(
                  embedding.fisher,
                  embedding.expected(padding_idx),
                  kTolerance<T>);
            });
      }
    }
  }
}

TEST(Embedding, StopsAtARowOutOfRange) {
  Embedding<float> embedding(1, 3, 4, 0, {1, 7, 2});
  EXPECT_THROW(embedding.launch(-1), std::runtime_error);
}

} // namespace
} // namespace merganser::kernels
