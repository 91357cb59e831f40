#include "merganser/io/task_vector.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "merganser/base/error.h"
#include "merganser/base/json_text.h"

namespace merganser {
namespace {

using nlohmann::ordered_json;

ordered_json to_json(const AlongTaskVector& along) {
  return {
      {"slope", along.slope.value},
      {"slope_standard_error", along.slope.standard_error},
      {"curvature", along.curvature.value},
      {"curvature_standard_error", along.curvature.standard_error}};
}

AlongTaskVector from_json(const ordered_json& json) {
  return {
      .slope =
          {json.at("slope").get<double>(),
           json.at("slope_standard_error").get<double>()},
      .curvature = {
          json.at("curvature").get<double>(),
          json.at("curvature_standard_error").get<double>()}};
}

} // namespace

std::string TaskVectorStatistics::to_json() const {
  ordered_json by_group = ordered_json::object();
  for (const auto& [name, along] : groups) {
    by_group[name] = merganser::to_json(along);
  }
  ordered_json json = {
      {"base_model_hash", base_model_hash},
      {"num_examples_used", num_examples_used},
      {"base_num_examples_used", base_num_examples_used}};
  json.update(merganser::to_json(total));
  json["groups"] = std::move(by_group);
  return json_text(json);
}

TaskVectorStatistics TaskVectorStatistics::parse(
    const std::string& text,
    const std::filesystem::path& file) {
  try {
    const ordered_json json = ordered_json::parse(text);
    TaskVectorStatistics found{
        .base_model_hash = json.at("base_model_hash").get<std::string>(),
        .num_examples_used = json.at("num_examples_used").get<int64_t>(),
        .base_num_examples_used =
            json.at("base_num_examples_used").get<int64_t>(),
        .total = from_json(json),
        .groups = {}};
    for (const auto& [name, along] : json.at("groups").items()) {
      found.groups.emplace_back(name, from_json(along));
    }
    return found;
  } catch (const nlohmann::json::exception&) {
    throw InputError(fmt::format(
        "{}: the metadata key 'task_vector' is damaged; estimate the Fisher "
        "again",
        file.string()));
  }
}

} // namespace merganser
