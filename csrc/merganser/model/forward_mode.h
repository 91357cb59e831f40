#pragma once

#include <ATen/core/Tensor.h>

#include <mutex>
#include <vector>

#include "merganser/base/api.h"

namespace merganser {

// Forward-mode differentiation: while it exists, every tensor computed from
// the parameters has a derivative in the direction of the tangents. torch has
// one such level per process, so a second object waits for the first.
class MERGANSER_API ForwardMode {
 public:
  // tangents: one for each parameter, of its shape. torch copies a tangent
  // whose strides, offset or size of storage differ from the parameter's.
  ForwardMode(
      const std::vector<at::Tensor>& parameters,
      const std::vector<at::Tensor>& tangents);
  ~ForwardMode();
  ForwardMode(const ForwardMode&) = delete;
  ForwardMode& operator=(const ForwardMode&) = delete;

  // The derivative of a tensor, as a constant: without a graph.
  at::Tensor tangent(const at::Tensor& output) const;

 private:
  std::unique_lock<std::mutex> lock_;
  uint64_t level_;
};

} // namespace merganser
