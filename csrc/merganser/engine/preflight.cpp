#include "merganser/engine/preflight.h"

#include <fmt/format.h>

#include "merganser/base/error.h"
#include "merganser/base/text_table.h"

namespace merganser {

namespace fs = std::filesystem;

void check_space(const fs::path& out, uint64_t needed) {
  fs::path folder = fs::absolute(out);
  while (!fs::exists(folder)) {
    folder = folder.parent_path();
  }
  const uint64_t free = fs::space(folder).available;
  if (free < needed) {
    throw Error(fmt::format(
        "{} needs {}, but its disk has {} free",
        out.string(),
        format_bytes(needed),
        format_bytes(free)));
  }
}

} // namespace merganser
