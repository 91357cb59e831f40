#pragma once

#include <span>
#include <string>
#include <string_view>

#include "merganser/base/api.h"
#include "merganser/recipe/method.h"

namespace merganser {

MERGANSER_API std::span<const MethodInfo* const> merge_methods();

// All methods and their parameters: tables for people, the part of
// docs/recipes.md that is made of them, and JSON.
MERGANSER_API std::string methods_text();
MERGANSER_API std::string methods_markdown();
MERGANSER_API std::string methods_json();

// Throws InputError listing the names there are.
MERGANSER_API const MethodInfo& find_method(std::string_view name);
// The method that is nothing but this formula.
MERGANSER_API const MethodInfo& method_of(MergeFormula formula);

} // namespace merganser
