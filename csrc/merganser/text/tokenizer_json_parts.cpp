#include "merganser/text/tokenizer_json_parts.h"

#include <limits>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "merganser/base/error.h"
#include "merganser/base/json_text.h"
#include "merganser/base/quote.h"

namespace merganser::tokenizer_json {

const json& get(const json& object, const char* key) {
  static const json null;
  const auto found = object.find(key);
  return found == object.end() ? null : *found;
}

std::string type_of(const json& part) {
  return part.is_null() ? "null" : part.at("type").get<std::string>();
}

void refuse(
    std::string_view part,
    std::string_view type,
    std::string_view advice) {
  throw InputError(
      fmt::format("{} {} is not supported; {}", part, quote(type), advice));
}

int32_t read_id(const json& value, std::string_view token) {
  if (!value.is_number_integer() || value < 0 ||
      value > std::numeric_limits<int32_t>::max()) {
    throw InputError(fmt::format(
        "the id of {} is {}, expected a non-negative integer",
        quote(token),
        quote(json_text(value))));
  }
  return value.get<int32_t>();
}

int32_t find_id(const Vocabulary& vocabulary, std::string_view token) {
  const std::optional<int32_t> id = vocabulary.find(token);
  if (!id) {
    throw InputError(
        fmt::format("the token {} is not in the vocabulary", quote(token)));
  }
  return *id;
}

} // namespace merganser::tokenizer_json
