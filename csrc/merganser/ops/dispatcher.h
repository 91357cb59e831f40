#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

namespace merganser::ops {

// The op `name` of library.cpp; f is the C++ function of ops.h of that name.
template <typename Signature>
auto find_op(const char* name, Signature* /*f*/) {
  return c10::Dispatcher::singleton()
      .findSchemaOrThrow(name, "")
      .template typed<Signature>();
}

} // namespace merganser::ops
