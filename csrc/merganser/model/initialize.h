#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <string>

#include "merganser/model/config.h"

namespace merganser {

// Initializes one parameter of a new model, see EncoderImpl::initialize.
void initialize_parameter(
    const std::string& name,
    at::Tensor parameter,
    const EncoderConfig& config,
    at::Generator& generator);

} // namespace merganser
