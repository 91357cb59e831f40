#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace merganser {

// Turns the text between added tokens into ids. Texts are well-formed UTF-8.
class SubwordModel {
 public:
  virtual ~SubwordModel() = default;

  // Normalizes the text, which is then searched for added tokens again and
  // split into words. Returns `buffer`, or `text` itself without a normalizer.
  virtual std::string_view normalize(std::string_view text, std::string& buffer)
      const = 0;

  // Appends the ids of a normalized text; may stop at `limit` ids or more.
  virtual void encode(
      std::string_view text,
      size_t limit,
      std::vector<int32_t>& ids) const = 0;
};

} // namespace merganser
