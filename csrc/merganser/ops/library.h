#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

namespace merganser::ops {

// The names of all ops that take tensors.
inline constexpr const char* kOpNames[] = {
    "square_accumulate_",
    "adam_fisher_step_",
    "merge",
    "linear_square_accumulate_",
    "bias_square_accumulate_",
    "embedding_square_accumulate_",
    "layer_norm_square_accumulate_",
    "sample_labels",
    "dropout",
};

// The op `name` of library.cpp; `f` has the C++ signature of its schema.
template <typename Signature>
auto find_op(const char* name, Signature* /*f*/) {
  return c10::Dispatcher::singleton()
      .findSchemaOrThrow(name, "")
      .template typed<Signature>();
}

} // namespace merganser::ops
