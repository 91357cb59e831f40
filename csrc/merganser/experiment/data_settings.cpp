#include "merganser/experiment/data_settings.h"

#include <fmt/format.h>

#include "merganser/experiment/layout.h"

namespace merganser {
namespace {

namespace fs = std::filesystem;

fs::path parse_file(const YamlValue& value, const fs::path& folder) {
  const fs::path path = value.path(folder);
  if (!fs::is_regular_file(path)) {
    value.fail(fmt::format("file not found: {}", path.string()));
  }
  return path;
}

} // namespace

std::vector<ExperimentData> parse_data(
    const YamlValue& mapping,
    const fs::path& folder) {
  std::vector<ExperimentData> data;
  for (const auto& [name, value] : mapping.entries()) {
    layout::check_name(value, name);
    if (name == layout::kBase || name == layout::kTarget) {
      value.fail(fmt::format(
          "'{}' is reserved for a model; choose another name for the data set",
          name));
    }
    if (name.ends_with(".labels")) {
      value.fail(fmt::format(
          "'{}' is reserved in prediction files; choose another name for the "
          "data set",
          name));
    }
    value.expect_keys({"train", "test", "limit_train", "limit_test"});
    data.push_back(
        {.name = name,
         .train = parse_file(value.at("train"), folder),
         .test = parse_file(value.at("test"), folder)});
    if (const auto limit = value.find("limit_train")) {
      data.back().limit_train = limit->integer(1);
    }
    if (const auto limit = value.find("limit_test")) {
      data.back().limit_test = limit->integer(1);
    }
  }
  return data;
}

double parse_validation(const YamlValue& value) {
  const double part = value.positive();
  return part < 1 ? part : static_cast<double>(value.integer(1));
}

} // namespace merganser
