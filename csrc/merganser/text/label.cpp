#include "merganser/text/label.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "merganser/base/error.h"
#include "merganser/base/quote.h"

namespace merganser {
namespace {

constexpr int64_t kLargestLabel = std::numeric_limits<int32_t>::max();
constexpr size_t kNamesShown = 10;

[[noreturn]] void refuse_label(
    const std::filesystem::path& path,
    int64_t line,
    const std::string& label, // quoted
    const LabelNames& names) {
  if (names.empty()) {
    fail_at_line(
        path,
        line,
        fmt::format(
            "the label is {}, expected a whole number from 0 to {}; a name "
            "needs id2label in the model's config.json",
            label,
            kLargestLabel));
  }
  std::vector<std::string> known;
  for (const auto& [name, id] : names) {
    known.push_back(known.size() < kNamesShown ? quote(name) : "...");
    if (known.size() > kNamesShown) {
      break;
    }
  }
  fail_at_line(
      path,
      line,
      fmt::format(
          "the label is {}, expected a whole number from 0 to {} or a name in "
          "the model's config.json ({})",
          label,
          kLargestLabel,
          fmt::join(known, ", ")));
}

std::optional<int64_t> label_of_number(double number) {
  if (number >= 0 && number <= kLargestLabel && number == std::floor(number)) {
    return static_cast<int64_t>(number);
  }
  return {};
}

// Digits, which ".0" may follow: pandas writes integers so where a column has
// gaps.
std::optional<int64_t> label_of_digits(std::string_view text) {
  const size_t point = std::min(text.find('.'), text.size());
  const std::string_view digits = text.substr(0, point);
  const std::string_view zeros = text.substr(std::min(point + 1, text.size()));
  int64_t value = 0;
  const char* const digits_end = digits.data() + digits.size();
  const auto [end, error] = std::from_chars(digits.data(), digits_end, value);
  if (error != std::errc() || end != digits_end || digits.front() == '-' ||
      value > kLargestLabel || (point != text.size() && zeros.empty()) ||
      zeros.find_first_not_of('0') != std::string_view::npos) {
    return {};
  }
  return value;
}

std::optional<int64_t> label_of_name(
    std::string_view text,
    const LabelNames& names) {
  const auto found = names.find(std::string(text));
  return found == names.end() ? std::nullopt : std::optional(found->second);
}

} // namespace

void fail_at_line(
    const std::filesystem::path& path,
    int64_t line,
    std::string_view what) {
  throw InputError(fmt::format("{}:{}: {}", path.string(), line, what));
}

int64_t read_json_label(
    const std::filesystem::path& path,
    int64_t line,
    const nlohmann::json& label,
    const LabelNames& names) {
  std::optional<int64_t> id;
  if (label.is_number()) {
    id = label_of_number(label.get<double>());
  } else if (label.is_string()) {
    id = label_of_name(label.get_ref<const std::string&>(), names);
  }
  if (!id) {
    refuse_label(
        path,
        line,
        label.is_string() ? "the string " + quote(label.get<std::string>())
                          : quote(label.dump()),
        names);
  }
  return *id;
}

int64_t read_table_label(
    const std::filesystem::path& path,
    int64_t line,
    std::string_view label,
    const LabelNames& names) {
  const std::optional<int64_t> number = label_of_digits(label);
  const std::optional<int64_t> name = label_of_name(label, names);
  if (!number && !name) {
    refuse_label(path, line, quote(label), names);
  }
  if (number && name && *number != *name) {
    fail_at_line(
        path,
        line,
        fmt::format(
            "the label {} is the name of class {} and the number of class {}; "
            "in a .jsonl file a name is a string",
            quote(label),
            *name,
            *number));
  }
  return number ? *number : *name;
}

} // namespace merganser
