#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

namespace merganser {

// Maps tokens to ids; a lookup does not copy the text.
class Vocabulary {
 public:
  void add(std::string token, int32_t id) {
    ids_.insert_or_assign(std::move(token), id);
  }
  std::optional<int32_t> find(std::string_view token) const {
    const auto found = ids_.find(token);
    return found == ids_.end() ? std::nullopt : std::optional(found->second);
  }
  size_t size() const {
    return ids_.size();
  }
  auto begin() const {
    return ids_.begin();
  }
  auto end() const {
    return ids_.end();
  }

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view token) const {
      return std::hash<std::string_view>{}(token);
    }
  };
  std::unordered_map<std::string, int32_t, Hash, std::equal_to<>> ids_;
};

} // namespace merganser
