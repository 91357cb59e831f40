#include "merganser/io/fisher_scale.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "merganser/base/error.h"
#include "merganser/base/json_text.h"

namespace merganser {

std::string FisherScale::to_json() const {
  const nlohmann::ordered_json json = {
      {"value", scale.value},
      {"standard_error", scale.standard_error},
      {"merge_hash", merge_hash},
      {"num_examples_used", num_examples_used}};
  return json_text(json);
}

FisherScale FisherScale::parse(
    const std::string& text,
    const std::filesystem::path& file) {
  try {
    const auto json = nlohmann::ordered_json::parse(text);
    FisherScale found{
        .scale =
            {json.at("value").get<double>(),
             json.at("standard_error").get<double>()},
        .merge_hash = json.at("merge_hash").get<std::string>(),
        .num_examples_used = json.at("num_examples_used").get<int64_t>()};
    if (std::isfinite(found.scale.value) && found.scale.value > 0) {
      return found;
    }
  } catch (const nlohmann::json::exception&) {
    // below
  }
  throw InputError(fmt::format(
      "{}: the metadata key 'scale' is damaged; calibrate the Fisher again",
      file.string()));
}

} // namespace merganser
