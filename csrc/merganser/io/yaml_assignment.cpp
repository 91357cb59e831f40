#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include "merganser/base/error.h"
#include "merganser/io/yaml_value.h"

namespace merganser {
namespace {

// A copy without places in a text.
YAML::Node without_marks(const YAML::Node& node) {
  YAML::Node copy;
  if (node.IsMap()) {
    copy = YAML::Node(YAML::NodeType::Map);
    for (const auto& entry : node) {
      copy.force_insert(
          without_marks(entry.first), without_marks(entry.second));
    }
  } else if (node.IsSequence()) {
    copy = YAML::Node(YAML::NodeType::Sequence);
    for (const YAML::Node& item : node) {
      copy.push_back(without_marks(item));
    }
  } else if (node.IsScalar()) {
    copy = node.Scalar();
    copy.SetTag(node.Tag());
  }
  return copy;
}

} // namespace

YamlValue YamlValue::with(std::string_view assignment) const {
  const size_t equals = assignment.find('=');
  if (equals == std::string_view::npos || equals == 0) {
    throw InputError(fmt::format("expected key=value, got '{}'", assignment));
  }
  const YamlValue value = parse(
      std::string(assignment.substr(equals + 1)), std::string(assignment));
  return YamlValue(
      replaced(assignment.substr(0, equals), without_marks(value.node_)),
      source_,
      name_);
}

// Copies the mappings and lists on the path only: nodes of an anchor keep their
// value everywhere else.
YAML::Node YamlValue::replaced(std::string_view path, const YAML::Node& value)
    const {
  const size_t dot = path.find('.');
  const std::string first(path.substr(0, dot));
  const auto below = [&](const std::optional<YamlValue>& old) {
    if (dot == std::string_view::npos) {
      return value;
    }
    const YamlValue next = old && !old->node_.IsNull()
        ? *old
        : YamlValue(
              YAML::Node(YAML::NodeType::Map),
              source_,
              fmt::format("{}{}{}", name_, name_.empty() ? "" : ".", first));
    return next.replaced(path.substr(dot + 1), value);
  };
  if (is_list()) {
    const YAML::Node position(first);
    const auto at = YamlValue(position, source_, name_ + "'s position")
                        .integer(0, static_cast<int64_t>(node_.size()) - 1);
    YAML::Node copy(YAML::NodeType::Sequence);
    const std::vector<YamlValue> all = items();
    for (size_t i = 0; i < all.size(); ++i) {
      copy.push_back(
          static_cast<int64_t>(i) == at ? below(all[i]) : all[i].node_);
    }
    return copy;
  }
  YAML::Node copy(YAML::NodeType::Map);
  for (const YAML::Node& key : keys()) {
    if (key.Scalar() != first) {
      copy.force_insert(key, at(key.Scalar()).node_);
    } else {
      copy.force_insert(key, below(find(first)));
    }
  }
  if (!find(first)) {
    copy.force_insert(first, below(std::nullopt));
  }
  return copy;
}

} // namespace merganser
