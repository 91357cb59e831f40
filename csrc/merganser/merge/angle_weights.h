#pragma once

#include <vector>

#include "merganser/merge/tensor_scan.h"

namespace merganser {

// Weights that follow from the angles between tensors.

// slerp's, of base and model.
template <typename T>
std::vector<double> slerp_weights(double t, TensorScan<T>& scan);

// Model stock's, of the models' task vectors.
template <typename T>
std::vector<double> model_stock_weights(size_t models, TensorScan<T>& scan);

} // namespace merganser
