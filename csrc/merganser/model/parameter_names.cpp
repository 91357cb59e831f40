#include "merganser/model/parameter_names.h"

#include <string_view>

namespace merganser {
namespace {

bool replace_suffix(
    std::string& name,
    std::string_view from,
    std::string_view to) {
  if (!name.ends_with(from)) {
    return false;
  }
  name.replace(name.size() - from.size(), from.size(), to);
  return true;
}

} // namespace

std::vector<std::string> names_in_checkpoints(const std::string& parameter) {
  std::vector<std::string> prefixed = {parameter};
  for (const std::string_view prefix : {"bert.", "roberta."}) {
    if (parameter.starts_with(prefix)) {
      prefixed.push_back(parameter.substr(prefix.size()));
    }
  }
  std::vector<std::string> names;
  for (std::string name : prefixed) {
    names.push_back(name);
    if (replace_suffix(name, "LayerNorm.weight", "LayerNorm.gamma") ||
        replace_suffix(name, "LayerNorm.bias", "LayerNorm.beta")) {
      names.push_back(name);
    }
  }
  return names;
}

} // namespace merganser
