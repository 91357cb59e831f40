// What a CUDA tensor meets in a build without CUDA kernels.

#include <torch/library.h>

#include "merganser/ops/library.h"
#include "merganser/ops/ops.h"

namespace merganser::ops {

bool has_cuda() {
  return false;
}

namespace {

void refuse(const c10::OperatorHandle& op, c10::Stack* /*stack*/) {
  TORCH_CHECK(
      false,
      op.schema().name(),
      ": this build of Merganser has no CUDA kernels; move the tensors to the "
      "CPU, or rebuild with the CUDA toolkit (nvcc), a CUDA build of torch and "
      "-DMERGANSER_CUDA=ON");
}

TORCH_LIBRARY_IMPL(merganser, CUDA, m) {
  for (const char* name : kOpNames) {
    m.impl(name, torch::CppFunction::makeFromBoxedFunction<&refuse>());
  }
}

} // namespace
} // namespace merganser::ops
