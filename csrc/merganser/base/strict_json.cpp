#include "merganser/base/strict_json.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <unordered_set>
#include <vector>

#include "merganser/base/error.h"
#include "merganser/base/quote.h"

namespace merganser {

namespace {

// Checks every value while it is parsed.
class Strictness {
 public:
  explicit Strictness(const std::string& file) : file_(file) {}

  void operator()(
      int depth,
      nlohmann::json::parse_event_t event,
      const nlohmann::json& value) {
    using Event = nlohmann::json::parse_event_t;
    const auto level = static_cast<size_t>(depth);
    if (event == Event::object_start || event == Event::array_start) {
      if (level >= kDeepest) {
        throw InputError(fmt::format(
            "{}: is nested more than {} levels deep", file_, kDeepest));
      }
      keys_.resize(level + 2); // drops those of finished objects
      keys_[level + 1].clear();
    } else if (event == Event::key) {
      const auto& key = value.get_ref<const std::string&>();
      if (!keys_[level].insert(key).second) {
        throw InputError(fmt::format(
            "{}: duplicate key {} in an object", file_, quote(key)));
      }
    }
  }

 private:
  static constexpr size_t kDeepest = 64;

  const std::string& file_;
  std::vector<std::unordered_set<std::string>> keys_; // by level
};

} // namespace

nlohmann::json parse_strict_json(
    std::string_view text,
    const std::string& file) {
  refuse_nul(text, file);
  Strictness check(file);
  try {
    return nlohmann::json::parse(
        text.begin(),
        text.end(),
        [&](int depth,
            nlohmann::json::parse_event_t event,
            const nlohmann::json& value) {
          check(depth, event, value);
          return true;
        });
  } catch (const nlohmann::json::parse_error& error) {
    throw InputError(fmt::format(
        "{}: is not valid JSON at byte {}: {}",
        file,
        error.byte,
        json_reason(error.what())));
  }
}

void refuse_nul(std::string_view text, const std::string& file) {
  const size_t nul = text.find('\0');
  if (nul != std::string_view::npos) {
    throw InputError(fmt::format(
        "{}: is not valid JSON at byte {}: a NUL byte", file, nul + 1));
  }
}

std::string json_reason(std::string_view what) {
  const size_t number = what.find("] ");
  if (number != std::string_view::npos) {
    what.remove_prefix(number + 2);
  }
  what = what.substr(0, what.find("; last read:"));
  const size_t place = what.find(" - ");
  if (place != std::string_view::npos) {
    what.remove_prefix(place + 3);
  }
  return std::string(what);
}

} // namespace merganser
