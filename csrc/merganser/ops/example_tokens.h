#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

namespace merganser::ops {

// The tokens of a batch that take part, by example; an example without any is
// skipped. A token is its row index in a matrix (examples * tokens, width).
class ExampleTokens {
 public:
  // The tokens whose row of `output` (examples, tokens, width) is not all zero,
  // in order. In is a floating-point type; a NaN is not zero.
  template <typename In>
  static ExampleTokens nonzero(
      const In* output,
      int64_t examples,
      int64_t tokens,
      int64_t width);

  int64_t size() const { // examples
    return static_cast<int64_t>(ends_.size()) - 1;
  }
  std::span<const int64_t> operator[](int64_t i) const {
    return {tokens_.data() + ends_[i], tokens_.data() + ends_[i + 1]};
  }
  const std::vector<int64_t>& all() const {
    return tokens_;
  }
  int64_t count(int64_t i) const { // tokens
    return ends_[i + 1] - ends_[i];
  }
  int64_t longest() const; // max tokens of an example

  // End of the group of examples that begins at `first`. It grows by `step`
  // examples while the sum of size_of(tokens) is at most `room`; `room` must
  // hold `step` examples of longest() tokens.
  template <typename Size>
  int64_t group_end(
      int64_t first,
      int64_t step,
      int64_t room,
      const Size& size_of) const {
    int64_t used = 0;
    while (first < size()) {
      const int64_t next = std::min(first + step, size());
      for (int64_t i = first; i < next; ++i) {
        used += size_of(count(i));
      }
      if (used > room) {
        break;
      }
      first = next;
    }
    return first;
  }

 private:
  std::vector<int64_t> tokens_;
  std::vector<int64_t> ends_ = {0};
};

} // namespace merganser::ops
