#include "merganser/experiment/seed_statistics.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>

namespace merganser {
namespace {

using Json = nlohmann::ordered_json;
using Values = std::vector<Json>;

// Applies a function to the numbers at every place of the values.
Json combine(
    const Values& values,
    const std::function<Json(const Values& numbers)>& numbers) {
  const Json& first = values.front();
  const auto part = [&](const auto& key) {
    Values parts;
    for (const Json& value : values) {
      parts.push_back(value.at(key));
    }
    return combine(parts, numbers);
  };
  const auto all = [&](auto has) { return std::ranges::all_of(values, has); };
  if (first.is_object()) {
    Json result = Json::object();
    for (const auto& [key, ignored] : first.items()) {
      if (all([&](const Json& value) { return value.contains(key); })) {
        result[key] = part(key);
      }
    }
    return result;
  }
  if (first.is_array() &&
      all([&](const Json& value) { return value.size() == first.size(); })) {
    Json result = Json::array();
    for (size_t i = 0; i < first.size(); ++i) {
      result.push_back(part(i));
    }
    return result;
  }
  return all([](const Json& value) { return value.is_number(); })
      ? numbers(values)
      : first;
}

double mean(const Values& numbers) {
  double sum = 0;
  for (const Json& number : numbers) {
    sum += number.get<double>();
  }
  return sum / static_cast<double>(numbers.size());
}

} // namespace

Json mean_over_seeds(const Values& values) {
  return combine(values, [](const Values& numbers) {
    const bool equal = std::ranges::all_of(
        numbers, [&](const Json& number) { return number == numbers.front(); });
    return equal ? numbers.front() : Json(mean(numbers)); // counts stay whole
  });
}

Json standard_error_over_seeds(const Values& values) {
  return combine(values, [](const Values& numbers) -> Json {
    const double center = mean(numbers);
    const auto n = static_cast<double>(numbers.size());
    double squares = 0;
    for (const Json& number : numbers) {
      const double deviation = number.get<double>() - center;
      squares += deviation * deviation;
    }
    return std::sqrt(squares / (n - 1) / n);
  });
}

} // namespace merganser
