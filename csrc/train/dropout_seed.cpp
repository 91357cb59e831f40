#include "train/dropout_seed.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/Tensor.h>

#include <mutex>

#include "kernels/philox.h"

namespace merganser {
namespace {

// Separates these draws from the shuffles and label draws of the same seed.
constexpr uint64_t kStream = 0x64726f706f7574; // "dropout"

} // namespace

DropoutSeed::DropoutSeed(uint64_t seed)
    : seed_(seed), generator_(at::detail::getDefaultCPUGenerator()) {
  const std::lock_guard lock(generator_.mutex());
  saved_ = generator_.get_state();
}

DropoutSeed::~DropoutSeed() {
  const std::lock_guard lock(generator_.mutex());
  generator_.set_state(saved_);
}

void DropoutSeed::begin_step(int64_t step) {
  const std::lock_guard lock(generator_.mutex());
  generator_.set_current_seed(
      philox_u64(seed_, kStream, static_cast<uint64_t>(step)));
}

} // namespace merganser
