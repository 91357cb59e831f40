#pragma once

#include <span>
#include <string>
#include <string_view>

#include "merganser/base/api.h"
#include "merganser/recipe/method.h"

namespace merganser {

// All methods, in the order of the documents.
MERGANSER_API std::span<const MethodInfo* const> merge_methods();

// All methods and their parameters: as plain text, as the generated part of
// docs/recipes.md, and as JSON.
MERGANSER_API std::string methods_text();
MERGANSER_API std::string methods_markdown();
MERGANSER_API std::string methods_json();

// Throws InputError that lists the available names.
MERGANSER_API const MethodInfo& find_method(std::string_view name);
// The method that consists of this formula alone.
MERGANSER_API const MethodInfo& method_of(MergeFormula formula);

} // namespace merganser
