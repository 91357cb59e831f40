#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <cmath>

#include "merganser/io/yaml_value.h"

namespace merganser {

std::string YamlValue::text() const {
  if (!node_.IsScalar() || node_.Scalar().empty()) {
    fail_type("a string");
  }
  return node_.Scalar();
}

bool YamlValue::is_text(std::string_view text) const {
  return node_.IsScalar() && node_.Scalar() == text;
}

std::filesystem::path YamlValue::path(
    const std::filesystem::path& folder) const {
  const auto path = (folder / text()).lexically_normal();
  return path.has_filename() ? path : path.parent_path(); // "models/a/"
}

bool YamlValue::boolean() const {
  bool value;
  if (!node_.IsScalar() || !YAML::convert<bool>::decode(node_, value)) {
    fail_type("true or false");
  }
  return value;
}

bool YamlValue::flag() const {
  if (node_.IsScalar() && (node_.Scalar() == "0" || node_.Scalar() == "1")) {
    return node_.Scalar() == "1";
  }
  return boolean();
}

double YamlValue::number(double min, double max) const {
  double value;
  if (!node_.IsScalar() || !YAML::convert<double>::decode(node_, value) ||
      !std::isfinite(value)) {
    fail_type("a number");
  }
  if (value < min || value > max) {
    fail_type(
        max == std::numeric_limits<double>::max()
            ? fmt::format("at least {}", min)
            : fmt::format("between {} and {}", min, max));
  }
  return value;
}

double YamlValue::positive(double max) const {
  const double value = number();
  if (value <= 0) {
    fail_type("greater than 0");
  }
  if (value > max) {
    fail_type(fmt::format("at most {}", max));
  }
  return value;
}

int64_t YamlValue::integer(int64_t min, int64_t max) const {
  int64_t value;
  if (!node_.IsScalar() || !YAML::convert<int64_t>::decode(node_, value)) {
    fail_type("an integer");
  }
  if (value < min || value > max) {
    fail_type(
        max == std::numeric_limits<int64_t>::max()
            ? fmt::format("at least {}", min)
            : fmt::format("between {} and {}", min, max));
  }
  return value;
}

} // namespace merganser
