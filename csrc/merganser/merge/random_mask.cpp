#include "merganser/merge/random_mask.h"

#include "merganser/io/content_hash.h"
#include "merganser/numeric/philox.h"

namespace merganser {
namespace {

uint64_t stream_of(const std::string& name, size_t model) {
  return hash_bytes(std::as_bytes(std::span(name))).low + model;
}

// Returns 0 for methods without the parameter.
double value_of(const std::vector<double>& values, size_t model) {
  return values.empty() ? 0 : values[model];
}

} // namespace

RandomMask::RandomMask(const TensorPlan& tensor, size_t model, size_t output)
    : seed_(static_cast<uint64_t>(tensor.parameters[output].seed)),
      stream_(stream_of(tensor.drawn_as, model)),
      density_(tensor.parameters[output].density[model]),
      epsilon_(value_of(tensor.parameters[output].epsilon, model)),
      row_(row_length(tensor.output)) {}

void RandomMask::draw(int64_t begin, std::span<float> out) const {
  constexpr int64_t kWords = 4;
  PhiloxBlock block = {};
  for (size_t i = 0; i < out.size(); ++i) {
    const int64_t place = begin + static_cast<int64_t>(i);
    if (i == 0 || place % kWords == 0) {
      block = philox(seed_, stream_, static_cast<uint64_t>(place / kWords));
    }
    // 24 bits: a float represents them exactly.
    out[i] = static_cast<float>(block.word[place % kWords] >> 8) * 0x1p-24f;
  }
}

float RandomMask::chance(int64_t rank) const {
  const double share = row_ == 1 ? 0 : static_cast<double>(rank) / (row_ - 1);
  return static_cast<float>(density_ - epsilon_ + share * 2 * epsilon_);
}

int64_t row_length(const TensorInfo& tensor) {
  const int64_t numel = tensor.numel();
  return tensor.shape.size() < 2 || numel == 0 ? numel
                                               : numel / tensor.shape.front();
}

} // namespace merganser
