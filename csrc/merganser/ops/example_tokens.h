#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

namespace merganser::ops {

// Which tokens of a batch take part, by example; an example with none is left
// out. A token is the number of its row in a matrix (examples * tokens, width).
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
  int64_t longest() const; // the most tokens of an example

  // The end of a group of examples from `first` on, taken `step` at a time,
  // whose sizes (by the number of tokens) add up to no more than `room`, which
  // has to be enough for `step` times the longest().
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
