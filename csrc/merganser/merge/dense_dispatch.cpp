#include "merganser/merge/dense.h"

namespace merganser {

extern const DenseKernels dense_any;

#if defined(__x86_64__)
extern const DenseKernels dense_v3;
extern const DenseKernels dense_v4;

const DenseKernels& dense_kernels() {
  return __builtin_cpu_supports("x86-64-v4") ? dense_v4
      : __builtin_cpu_supports("x86-64-v3")  ? dense_v3
                                             : dense_any;
}
#else
const DenseKernels& dense_kernels() {
  return dense_any;
}
#endif

} // namespace merganser
