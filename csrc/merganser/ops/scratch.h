#pragma once

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>

#include <cstdint>

namespace merganser::ops {

// Temporary buffer of an op, aligned to a cache line and not initialised
// (zeroing half a megabyte takes as long as filling it).
template <typename T>
class Scratch {
 public:
  explicit Scratch(int64_t size)
      : data_(c10::GetCPUAllocator()->allocate(size * sizeof(T))) {}
  T* data() {
    return static_cast<T*>(data_.get());
  }

 private:
  at::DataPtr data_;
};

} // namespace merganser::ops
