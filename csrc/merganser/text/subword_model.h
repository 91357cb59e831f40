#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace merganser {

// How text between added tokens becomes ids. Texts are well-formed UTF-8.
class SubwordModel {
 public:
  virtual ~SubwordModel() = default;

  // The text in the form in which it is searched for added tokens once more and
  // cut into words: in `buffer`, or `text` itself where nothing is normalised.
  virtual std::string_view normalize(std::string_view text, std::string& buffer)
      const = 0;

  // Appends the ids of a normalised text; may stop as soon as there are `limit`
  // ids or more.
  virtual void encode(
      std::string_view text,
      size_t limit,
      std::vector<int32_t>& ids) const = 0;
};

} // namespace merganser
