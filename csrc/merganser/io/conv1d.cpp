#include "merganser/io/conv1d.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "merganser/base/json_text.h"

namespace merganser {
namespace {

using json = nlohmann::ordered_json;

bool names_conv1d(const json& config) {
  constexpr std::string_view kTypes[] = {
      "gpt2",
      "openai-gpt",
      "imagegpt",
      "decision_transformer",
      "clvp",
      "clvp_decoder"};
  if (!config.is_structured()) {
    return false;
  }
  const auto type = config.find("model_type");
  if (config.is_object() && type != config.end() && type->is_string() &&
      std::ranges::find(kTypes, type->get_ref<const std::string&>()) !=
          std::end(kTypes)) {
    return true;
  }
  return std::ranges::any_of(
      config, [](const json& value) { return names_conv1d(value); });
}

} // namespace

bool has_conv1d(std::string_view config) {
  return names_conv1d(parse_json_or_discard(config));
}

} // namespace merganser
