#pragma once

#include <span>
#include <string_view>

#include "io/api.h"
#include "merge/formula.h"

namespace merganser {

// One row per method: what recipes, plan and docs need to know of it.
struct MethodInfo {
  MergeMethod method;
  std::string_view name; // in recipes
  std::string_view formula; // for people
  bool needs_base;
  bool needs_fishers; // one per model
  bool needs_base_fisher;
  bool needs_num_examples; // of every Fisher it uses: H = N F
  bool normalizes; // weights can be divided by their sum...
  bool normalizes_by_default; // ...and are unless the recipe says otherwise
};

MERGANSER_API std::span<const MethodInfo> merge_methods();

// Throws InputError listing the names there are.
MERGANSER_API const MethodInfo& find_method(std::string_view name);
MERGANSER_API const MethodInfo& method_info(MergeMethod method);

} // namespace merganser
