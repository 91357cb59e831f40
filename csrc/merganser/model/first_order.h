#pragma once

#include "merganser/base/api.h"
#include "merganser/model/encoder.h"

namespace merganser {

// Makes `origin` the first-order model at its parameters theta_0 with the
// parameters theta of `model`:  f(x; theta_0) + J(x; theta_0) (theta -
// theta_0). Throws InputError, naming `model_name`, for parameters of other
// names or shapes.
MERGANSER_API void displace(
    Encoder& origin,
    const Encoder& model,
    const std::string& model_name);

} // namespace merganser
