#pragma once

#include <vector>

#include "merganser/merge/tensor_scan.h"

namespace merganser {

// Weights computed from angles between tensors.

// Returns slerp's weights of base and model.
template <typename T>
std::vector<double> slerp_weights(double t, TensorScan<T>& scan);

// Returns Model Stock's weights of the models, from their task vectors.
template <typename T>
std::vector<double> model_stock_weights(TensorScan<T>& scan);

} // namespace merganser
