#include "merganser/model/compute_dtype.h"

#include <fmt/format.h>

#include "merganser/base/error.h"

namespace merganser {

bool parse_bfloat16(const std::string& name) {
  if (name != "float32" && name != "bfloat16") {
    throw InputError(fmt::format(
        "unknown dtype \"{}\"; expected float32 or bfloat16", name));
  }
  return name == "bfloat16";
}

} // namespace merganser
