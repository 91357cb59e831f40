#include "merganser/plan/compare_configs.h"

#include <algorithm>
#include <map>
#include <string_view>

#include "merganser/plan/config_keys.h"

namespace merganser {
namespace {

using nlohmann::json;

struct Value {
  std::string key; // in the file
  json value;
};
using Values = std::map<std::string, Value>; // by the first name

// Value of a key as compared: one for each function.
json unified(std::string_view name, const json& value) {
  if (!value.is_string()) {
    return value;
  }
  if (is_activation_key(name)) {
    return common_activation(value);
  }
  return name == "rope_type" ? json(common_rope_type(value)) : value;
}

// Values of rope_scaling, or rope_parameters, which may have one object for
// each type of layer.
void read_rope(
    const json& rope,
    const std::string& name,
    const std::string& key,
    Values& values) {
  for (const auto& [inner, value] : rope.items()) {
    if (value.is_object()) {
      read_rope(value, name + inner + ".", key + inner + ".", values);
    } else {
      const std::string own = inner == "type" ? "rope_type" : inner;
      values.emplace(name + own, Value{key + inner, value});
    }
  }
}

void read_values(
    const json& config,
    const std::string& prefix,
    Values& values) {
  bool by_layer_type = false;
  for (const auto& [key, value] : config.items()) {
    if (is_harmless_key(key)) {
      continue;
    }
    if (value.is_object() &&
        (key == "rope_parameters" || key == "rope_scaling")) {
      read_rope(value, prefix + "rope_parameters.", prefix + key + ".", values);
      by_layer_type |= std::ranges::any_of(
          value, [](const json& item) { return item.is_object(); });
    } else if (
        value.is_object() &&
        (key.ends_with("_config") || value.contains("model_type"))) {
      read_values(value, prefix + key + ".", values);
    } else if (key != "rope_scaling" && key != "rope_parameters") {
      values.emplace(prefix + common_key(key), Value{prefix + key, value});
    }
  }
  if (!by_layer_type) {
    values.emplace(
        prefix + "rope_parameters.rope_type", Value{"rope_type", "default"});
  }
}

bool gives_meaning(const std::string& name, std::string_view last) {
  return name == "model_type" || gives_tensors_meaning(last) ||
      name.find("rope_parameters.") != name.npos;
}

std::string last_part(const std::string& name) {
  return name.substr(name.rfind('.') + 1);
}

// True for values that differ even between models of one base: the padding that
// a training chose, and a length of which a table of positions has the shape.
bool is_free(
    const std::string& name,
    std::string_view last,
    const Values& values) {
  if (last == "pad_token_id") {
    const std::string prefix = name.substr(0, name.size() - last.size());
    const auto type = values.find(prefix + "model_type");
    return type != values.end() && type->second.value.is_string() &&
        !positions_from_padding(
               type->second.value.get_ref<const std::string&>());
  }
  return last == "max_position_embeddings";
}

bool is_depth(std::string_view last, const json& value) {
  return last == "num_hidden_layers" ||
      (value.is_array() && last.find("layer") != last.npos);
}

// Values with a meaning that `other` lacks.
std::vector<Value> lacking(
    const Values& values,
    const Values& other,
    bool any_depth) {
  std::vector<Value> found;
  for (const auto& [name, value] : values) {
    const std::string last = last_part(name);
    if (!other.contains(name) && gives_tensors_meaning(last) &&
        !value.value.is_null() && !(any_depth && is_depth(last, value.value))) {
      found.push_back(value);
    }
  }
  return found;
}

} // namespace

std::vector<ConfigDifference> compare_configs(
    const json& config,
    const json& other,
    bool any_depth) {
  Values ours, theirs;
  read_values(config, "", ours);
  read_values(other, "", theirs);
  std::vector<ConfigDifference> differences;
  for (const auto& [name, a] : ours) {
    const auto found = theirs.find(name);
    if (found == theirs.end()) {
      continue;
    }
    const Value& b = found->second;
    const std::string last = last_part(name);
    const bool meaning = gives_meaning(name, last);
    if ((any_depth && is_depth(last, a.value)) ||
        (meaning && (a.value.is_null() || b.value.is_null())) ||
        unified(last, a.value) == unified(last, b.value)) {
      continue;
    }
    differences.push_back(
        {a.key, a.value, b.value, meaning && !is_free(name, last, ours)});
  }
  const json absent(json::value_t::discarded);
  for (const Value& value : lacking(ours, theirs, any_depth)) {
    differences.push_back({value.key, value.value, absent, false});
  }
  for (const Value& value : lacking(theirs, ours, any_depth)) {
    differences.push_back({value.key, absent, value.value, false});
  }
  return differences;
}

} // namespace merganser
