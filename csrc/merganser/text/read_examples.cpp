#include <algorithm>
#include <charconv>
#include <limits>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "merganser/base/error.h"
#include "merganser/base/json_text.h"
#include "merganser/base/quote.h"
#include "merganser/base/strict_json.h"
#include "merganser/base/utf8.h"
#include "merganser/io/atomic_file.h"
#include "merganser/text/csv.h"
#include "merganser/text/dataset.h"

namespace merganser {
namespace {

constexpr uint64_t kLargestLabel = std::numeric_limits<int32_t>::max();

[[noreturn]] void fail(
    const std::filesystem::path& path,
    int64_t line,
    std::string_view what) {
  throw InputError(fmt::format("{}:{}: {}", path.string(), line, what));
}

[[noreturn]] void refuse_label(
    const std::filesystem::path& path,
    int64_t line,
    std::string_view label) {
  fail(
      path,
      line,
      fmt::format(
          "the label {} is not an integer from 0 to {}; write the number of "
          "the class, not its name",
          quote(label),
          kLargestLabel));
}

TextExample parse_json_line(
    const std::filesystem::path& path,
    int64_t line,
    std::string_view text) {
  const nlohmann::json object =
      parse_strict_json(text, fmt::format("{}:{}", path.string(), line));
  if (!object.is_object()) {
    fail(path, line, "expected an object with \"text\" and \"label\"");
  }
  for (const char* key : {"text", "label"}) {
    if (!object.contains(key)) {
      fail(path, line, fmt::format("the key \"{}\" is missing", key));
    }
  }
  if (!object["text"].is_string()) {
    fail(path, line, "\"text\" is not a string");
  }
  const nlohmann::json& label = object["label"];
  if (!label.is_number_unsigned() || label.get<uint64_t>() > kLargestLabel) {
    refuse_label(path, line, json_text(label));
  }
  return {object["text"].get<std::string>(), label.get<int64_t>(), line};
}

std::vector<TextExample> read_json_lines(
    const std::filesystem::path& path,
    std::string_view content) {
  std::vector<TextExample> examples;
  int64_t line = 0;
  while (!content.empty()) {
    ++line;
    const size_t end = content.find('\n');
    const std::string_view text = content.substr(0, end);
    content.remove_prefix(
        end == std::string_view::npos ? content.size() : end + 1);
    if (text.find_first_not_of(" \t\r") != std::string_view::npos) {
      examples.push_back(parse_json_line(path, line, text));
    }
  }
  return examples;
}

std::vector<TextExample> read_table(
    const std::filesystem::path& path,
    std::string_view content,
    char separator) {
  CsvReader reader(path, content, separator);
  std::vector<std::string> fields;
  if (!reader.next(fields)) {
    return {};
  }
  const auto column = [&](std::string_view name) {
    const auto found = std::find(fields.begin(), fields.end(), name);
    if (found == fields.end()) {
      fail(
          path,
          reader.line(),
          fmt::format(
              "the header has no column \"{}\", only \"{}\"",
              name,
              fmt::join(fields, "\", \"")));
    }
    return static_cast<size_t>(found - fields.begin());
  };
  const size_t text = column("text");
  const size_t label = column("label");
  const size_t width = fields.size();

  std::vector<TextExample> examples;
  while (reader.next(fields)) {
    if (fields.size() != width) {
      fail(
          path,
          reader.line(),
          fmt::format(
              "expected {} fields as in the header, got {}; put text that "
              "contains the separator in double quotes",
              width,
              fields.size()));
    }
    const std::string& digits = fields[label];
    uint64_t value = 0;
    const char* const digits_end = digits.data() + digits.size();
    const auto [end, error] = std::from_chars(digits.data(), digits_end, value);
    if (error != std::errc() || end != digits_end || value > kLargestLabel) {
      refuse_label(path, reader.line(), digits);
    }
    examples.push_back(
        {std::move(fields[text]), static_cast<int64_t>(value), reader.line()});
  }
  return examples;
}

void check_utf8(const std::filesystem::path& path, std::string_view content) {
  if (const auto at = find_ill_formed_utf8(content)) {
    const std::string_view before = content.substr(0, *at);
    fail(
        path,
        1 + std::count(before.begin(), before.end(), '\n'),
        "is not UTF-8; convert the file to UTF-8");
  }
}

} // namespace

std::vector<TextExample> read_examples(const std::filesystem::path& path) {
  const std::string extension = path.extension().string();
  if (extension != ".jsonl" && extension != ".csv" && extension != ".tsv") {
    throw InputError(fmt::format(
        "{}: unknown file type; expected .jsonl, .csv or .tsv", path.string()));
  }
  const std::string file = read_file(path);
  std::string_view content = file;
  check_utf8(path, content);
  if (content.starts_with("\xEF\xBB\xBF")) { // byte order mark
    content.remove_prefix(3);
  }
  std::vector<TextExample> examples = extension == ".jsonl"
      ? read_json_lines(path, content)
      : read_table(path, content, extension == ".csv" ? ',' : '\t');
  if (examples.empty()) {
    throw InputError(fmt::format(
        "{}: has no examples; each needs a \"text\" and a \"label\"",
        path.string()));
  }
  return examples;
}

} // namespace merganser
