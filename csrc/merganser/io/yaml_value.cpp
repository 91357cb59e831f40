#include "merganser/io/yaml_value.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <set>

#include "merganser/base/error.h"
#include "merganser/base/problems.h"
#include "merganser/base/utf8.h"
#include "merganser/io/atomic_file.h"

namespace merganser {
namespace {

std::string at_mark(
    const std::string& source,
    const YAML::Mark& mark,
    std::string_view message) {
  return mark.is_null()
      ? fmt::format("{}: {}", source, message)
      : fmt::format(
            "{}:{}:{}: {}", source, mark.line + 1, mark.column + 1, message);
}

[[noreturn]] void fail_at(
    const std::string& source,
    const YAML::Mark& mark,
    std::string_view message) {
  throw InputError(at_mark(source, mark, message));
}

std::string kind(const YAML::Node& node) {
  switch (node.Type()) {
    case YAML::NodeType::Map:
      return node.size() == 0 ? "an empty mapping" : "a mapping";
    case YAML::NodeType::Sequence:
      return node.size() == 0 ? "an empty list" : "a list";
    case YAML::NodeType::Scalar:
      return fmt::format("'{}'", node.Scalar());
    default:
      return "nothing";
  }
}

// The key `<<` of YAML 1.1, unless it is quoted; "?" is the tag of plain
// scalars.
bool is_merge_key(const YAML::Node& key) {
  return key.IsScalar() && key.Tag() == "?" && key.Scalar() == "<<";
}

// Refuses what yaml-cpp would pass on unchanged into files that are UTF-8.
void check_utf8(const std::string& yaml, const std::string& source) {
  if (const auto at = find_ill_formed_utf8(yaml)) {
    const std::string_view before = std::string_view(yaml).substr(0, *at);
    const size_t line = before.rfind('\n') + 1; // npos + 1 is 0
    YAML::Mark mark;
    mark.line = static_cast<int>(std::ranges::count(before, '\n'));
    mark.column = static_cast<int>(
        std::ranges::count_if(before.substr(line), begins_code_point));
    fail_at(
        source, mark, "is not UTF-8 from here on; convert the file to UTF-8");
  }
}

} // namespace

YamlValue::YamlValue(YAML::Node node, std::string source, std::string name)
    : node_(std::move(node)),
      source_(std::move(source)),
      name_(std::move(name)) {}

YamlValue::YamlValue(const YamlValue&) = default;
YamlValue& YamlValue::operator=(const YamlValue&) = default;
YamlValue::~YamlValue() = default;

YamlValue YamlValue::parse(const std::string& yaml, const std::string& source) {
  check_utf8(yaml, source);
  try {
    const std::vector<YAML::Node> documents = YAML::LoadAll(yaml);
    if (documents.size() != 1) {
      throw InputError(fmt::format(
          "{}: expected one YAML document, found {}",
          source,
          documents.size()));
    }
    return YamlValue(documents[0], source, "");
  } catch (const YAML::Exception& error) {
    fail_at(source, error.mark, "invalid YAML: " + error.msg);
  }
}

YamlValue YamlValue::load(const std::filesystem::path& path) {
  return parse(read_file(path), path.string());
}

YamlValue YamlValue::of(YAML::Node root, const std::string& source) {
  return YamlValue(std::move(root), source, "");
}

void YamlValue::fail(std::string_view message) const {
  fail_at(source_, node_.Mark(), message);
}

void YamlValue::fail_type(std::string_view expected) const {
  fail(fmt::format(
      "{} must be {}, not {}",
      name_.empty() ? "the document" : name_,
      expected,
      kind(node_)));
}

bool YamlValue::is_mapping() const {
  return node_.IsMap();
}

std::vector<YAML::Node> YamlValue::mappings() const {
  if (!node_.IsMap()) {
    fail_type("a mapping");
  }
  std::vector<YAML::Node> found;
  add_mappings(node_, found);
  return found;
}

void YamlValue::add_mappings(
    const YAML::Node& mapping,
    std::vector<YAML::Node>& found) const {
  constexpr size_t kMost = 1000;
  if (!mapping.IsMap()) {
    fail_at(
        source_,
        mapping.Mark(),
        "<< must name a mapping or a list of mappings, not " + kind(mapping));
  }
  // A mapping that was found before adds no key; it may contain itself.
  if (std::ranges::any_of(
          found, [&](const YAML::Node& node) { return node.is(mapping); })) {
    return;
  }
  if (found.size() == kMost) {
    fail(fmt::format("<< merges more than {} mappings", kMost));
  }
  found.push_back(mapping);
  for (const auto& entry : mapping) {
    if (!is_merge_key(entry.first)) {
      continue;
    }
    if (entry.second.IsSequence()) {
      for (const YAML::Node& item : entry.second) {
        add_mappings(item, found);
      }
    } else {
      add_mappings(entry.second, found);
    }
  }
}

std::vector<YAML::Node> YamlValue::keys() const {
  std::vector<YAML::Node> keys;
  std::set<std::string> all;
  for (const YAML::Node& mapping : mappings()) {
    std::set<std::string> own;
    for (const auto& entry : mapping) {
      const YAML::Node& key = entry.first;
      if (!key.IsScalar()) {
        fail_at(
            source_, key.Mark(), "a key must be a string, not " + kind(key));
      }
      if (!own.insert(key.Scalar()).second) {
        fail_at(
            source_,
            key.Mark(),
            fmt::format("duplicate key '{}'", key.Scalar()));
      }
      if (!is_merge_key(key) && all.insert(key.Scalar()).second) {
        keys.push_back(key);
      }
    }
  }
  return keys;
}

void YamlValue::expect_keys(std::span<const std::string_view> known) const {
  Problems problems;
  expect_keys(known, problems);
  problems.throw_if_any();
}

void YamlValue::expect_keys(
    std::span<const std::string_view> known,
    Problems& problems) const {
  const std::vector<YAML::Node> all = mappings();
  problems.collect([&] { keys(); });
  for (const YAML::Node& mapping : all) {
    for (const auto& entry : mapping) {
      const YAML::Node& key = entry.first;
      if (key.IsScalar() && !is_merge_key(key) &&
          std::find(known.begin(), known.end(), key.Scalar()) == known.end()) {
        problems.add(at_mark(
            source_,
            key.Mark(),
            fmt::format(
                "unknown key '{}'{}{}; available: {}",
                key.Scalar(),
                name_.empty() ? "" : " in ",
                name_,
                fmt::join(known, ", "))));
      }
    }
  }
}

std::vector<std::pair<std::string, YamlValue>> YamlValue::entries() const {
  std::vector<std::pair<std::string, YamlValue>> entries;
  for (const YAML::Node& key : keys()) {
    entries.emplace_back(key.Scalar(), at(key.Scalar()));
  }
  if (entries.empty()) {
    fail_type("a mapping of at least one key");
  }
  return entries;
}

std::optional<YamlValue> YamlValue::find(std::string_view key) const {
  for (const YAML::Node& mapping : mappings()) {
    // operator[] of a constant node does not add the key.
    if (const YAML::Node value = mapping[std::string(key)]; value.IsDefined()) {
      return YamlValue(
          value,
          source_,
          fmt::format("{}{}{}", name_, name_.empty() ? "" : ".", key));
    }
  }
  return std::nullopt;
}

std::optional<YamlValue> YamlValue::given(std::string_view key) const {
  auto value = find(key);
  if (value && value->node_.IsNull()) {
    return std::nullopt;
  }
  return value;
}

YamlValue YamlValue::at(std::string_view key) const {
  if (auto value = find(key)) {
    return *value;
  }
  fail(fmt::format(
      "'{}' is missing{}{}", key, name_.empty() ? "" : " in ", name_));
}

std::string YamlValue::to_yaml() const {
  return YAML::Dump(node_) + "\n";
}

bool YamlValue::is_list() const {
  return node_.IsSequence();
}

std::vector<YamlValue> YamlValue::items() const {
  if (!node_.IsSequence() || node_.size() == 0) {
    fail_type("a list of at least one item");
  }
  std::vector<YamlValue> values;
  for (size_t i = 0; i < node_.size(); ++i) {
    values.push_back(
        YamlValue(node_[i], source_, fmt::format("{}[{}]", name_, i)));
  }
  return values;
}

} // namespace merganser
