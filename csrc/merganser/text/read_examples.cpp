#include <algorithm>
#include <charconv>
#include <cmath>
#include <iterator>
#include <limits>
#include <optional>

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
#include "merganser/text/label.h"

namespace merganser {
namespace {

// Names of labels are null, in the functions below, where labels are ignored.

// Columns or keys of a file's texts.
struct TextColumns {
  std::string text;
  std::optional<std::string> pair;
};

// Names of pairs of texts: this library's and those of GLUE's tasks.
const TextColumns kPairs[] = {
    {"text", "text_pair"},
    {"sentence1", "sentence2"},
    {"premise", "hypothesis"},
    {"question1", "question2"},
    {"question", "sentence"}};

// Names of a further text elsewhere; an example without it would say something
// else.
constexpr const char* kOtherTexts[] = {
    "text1",
    "text2",
    "text_a",
    "text_b",
    "sentence_a",
    "sentence_b",
    "pair",
    "context",
    "passage"};

// The columns of a record that `has` the given names.
template <typename Has>
TextColumns find_texts(
    const std::filesystem::path& path,
    int64_t line,
    const Has& has) {
  TextColumns found{"text", {}};
  for (const TextColumns& pair : kPairs) {
    if (has(pair.text) && has(*pair.pair)) {
      found = pair;
      break;
    }
  }
  const auto refuse_other = [&](const std::string& name) {
    if (has(name) && name != found.text && name != found.pair) {
      fail_at_line(
          path,
          line,
          fmt::format(
              "\"{}\" next to \"{}\" would not be used; expected one text "
              "(\"text\") or two (\"text\" and \"text_pair\")",
              name,
              found.text));
    }
  };
  if (has(found.text)) { // otherwise it is missing
    for (const TextColumns& pair : kPairs) {
      refuse_other(pair.text);
      refuse_other(*pair.pair);
    }
    for (const char* name : kOtherTexts) {
      refuse_other(name);
    }
  }
  return found;
}

TextExample parse_json_line(
    const std::filesystem::path& path,
    int64_t line,
    std::string_view text,
    const LabelNames* names) {
  const nlohmann::json object =
      parse_strict_json(text, fmt::format("{}:{}", path.string(), line));
  if (!object.is_object()) {
    fail_at_line(path, line, "expected an object with \"text\" and \"label\"");
  }
  const auto value = [&](const std::string& key) -> const nlohmann::json& {
    if (!object.contains(key)) {
      fail_at_line(path, line, fmt::format("the key \"{}\" is missing", key));
    }
    return object[key];
  };
  const auto text_of = [&](const std::string& key) {
    if (!value(key).is_string()) {
      fail_at_line(path, line, fmt::format("\"{}\" is not a string", key));
    }
    return value(key).get<std::string>();
  };
  const TextColumns texts = find_texts(
      path, line, [&](const std::string& key) { return object.contains(key); });
  TextExample example{
      text_of(texts.text),
      names == nullptr ? 0
                       : read_json_label(path, line, value("label"), *names),
      line};
  if (texts.pair) {
    example.text_pair = text_of(*texts.pair);
  }
  return example;
}

std::vector<TextExample> read_json_lines(
    const std::filesystem::path& path,
    std::string_view content,
    const LabelNames* names) {
  std::vector<TextExample> examples;
  int64_t line = 0;
  while (!content.empty()) {
    ++line;
    const size_t end = content.find('\n');
    const std::string_view text = content.substr(0, end);
    content.remove_prefix(
        end == std::string_view::npos ? content.size() : end + 1);
    if (text.find_first_not_of(" \t\r") != std::string_view::npos) {
      examples.push_back(parse_json_line(path, line, text, names));
      if (examples.back().text_pair.has_value() !=
          examples.front().text_pair.has_value()) {
        fail_at_line(
            path,
            line,
            fmt::format(
                "expected {} as in line {}",
                examples.front().text_pair ? "two texts" : "one text",
                examples.front().line));
      }
    }
  }
  return examples;
}

std::vector<TextExample> read_table(
    const std::filesystem::path& path,
    std::string_view content,
    char separator,
    const LabelNames* names) {
  CsvReader reader(path, content, separator);
  std::vector<std::string> fields;
  if (!reader.next(fields)) {
    return {};
  }
  const auto column = [&](std::string_view name) {
    const auto found = std::find(fields.begin(), fields.end(), name);
    if (found == fields.end()) {
      fail_at_line(
          path,
          reader.line(),
          fmt::format(
              "the header has no column \"{}\", only \"{}\"",
              name,
              fmt::join(fields, "\", \"")));
    }
    if (std::find(std::next(found), fields.end(), name) != fields.end()) {
      fail_at_line(
          path,
          reader.line(),
          fmt::format("the header has two columns \"{}\"", name));
    }
    return static_cast<size_t>(found - fields.begin());
  };
  const TextColumns texts =
      find_texts(path, reader.line(), [&](const std::string& name) {
        return std::find(fields.begin(), fields.end(), name) != fields.end();
      });
  const size_t text = column(texts.text);
  const size_t pair = texts.pair ? column(*texts.pair) : text;
  const size_t label = names == nullptr ? text : column("label");
  const size_t width = fields.size();

  std::vector<TextExample> examples;
  while (reader.next(fields)) {
    if (fields.size() != width) {
      fail_at_line(
          path,
          reader.line(),
          fmt::format(
              "expected {} fields as in the header, got {}; put text that "
              "contains the separator in double quotes",
              width,
              fields.size()));
    }
    const int64_t id = names == nullptr
        ? 0
        : read_table_label(path, reader.line(), fields[label], *names);
    examples.push_back({std::move(fields[text]), id, reader.line()});
    if (texts.pair) {
      examples.back().text_pair = std::move(fields[pair]);
    }
  }
  return examples;
}

void check_utf8(const std::filesystem::path& path, std::string_view content) {
  if (const auto at = find_ill_formed_utf8(content)) {
    const std::string_view before = content.substr(0, *at);
    fail_at_line(
        path,
        1 + std::count(before.begin(), before.end(), '\n'),
        "is not UTF-8; convert the file to UTF-8");
  }
}

} // namespace

std::vector<TextExample> read_examples(
    const std::filesystem::path& path,
    const LabelNames& names,
    Labels labels) {
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
  const LabelNames* wanted = labels == Labels::kRequired ? &names : nullptr;
  std::vector<TextExample> examples = extension == ".jsonl"
      ? read_json_lines(path, content, wanted)
      : read_table(path, content, extension == ".csv" ? ',' : '\t', wanted);
  if (examples.empty()) {
    throw InputError(fmt::format(
        "{}: has no examples; each needs a \"text\" and a \"label\"",
        path.string()));
  }
  return examples;
}

} // namespace merganser
