#include "merganser/recipe/recipe.h"

namespace merganser {

std::string_view head_mode_name(HeadMode mode) {
  switch (mode) {
    case HeadMode::kMerge:
      return "merge";
    case HeadMode::kPerTask:
      return "per_task";
    case HeadMode::kBase:
      return "base";
  }
  return "";
}

} // namespace merganser
