#pragma once

#include <ATen/core/Tensor.h>

#include "merganser/base/api.h"

namespace merganser {

// The 2-norm of a flat float32 array, summed in float64; the same bits for any
// number of threads.
MERGANSER_API double flat_norm(const at::Tensor& flat);

// The factor that reduces gradients of this norm to max_norm (0: no limit), as
// torch.nn.utils.clip_grad_norm_ computes it.
MERGANSER_API double clip_scale(double norm, double max_norm);

} // namespace merganser
