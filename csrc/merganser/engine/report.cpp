#include "merganser/engine/report.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "merganser/base/json_text.h"
#include "merganser/base/text_table.h"

namespace merganser {

std::string MergeReport::to_text() const {
  std::string text = fmt::format(
      "{} tensors merged by {}, {} copied; {} read, {} written in {:.2f} s\n",
      tensors_merged,
      method,
      tensors_copied,
      format_bytes(bytes_read),
      format_bytes(bytes_written),
      seconds);
  if (counts_clamped && elements > 0) {
    text += fmt::format(
        "{:.2f} % of the denominators were clamped\n",
        100.0 * static_cast<double>(clamped) / static_cast<double>(elements));
  }
  if (nonfinite > 0) {
    text +=
        fmt::format("{} elements of the result are not finite\n", nonfinite);
  }
  if (tensors_resumed > 0) {
    text +=
        fmt::format("{} tensors finished by an earlier run\n", tensors_resumed);
  }
  return text;
}

std::string MergeReport::to_json() const {
  nlohmann::ordered_json json = {
      {"method", method},
      {"tensors_merged", tensors_merged},
      {"tensors_copied", tensors_copied},
      {"elements", elements},
      {"bytes_read", bytes_read},
      {"bytes_written", bytes_written},
      {"tensors_resumed", tensors_resumed},
      {"nonfinite", nonfinite},
      {"threads", threads},
      {"seconds", seconds}};
  if (counts_clamped) {
    json["clamped"] = clamped;
    json["clamped_fraction"] = elements == 0
        ? 0.0
        : static_cast<double>(clamped) / static_cast<double>(elements);
  }
  return json_text(json, 2);
}

} // namespace merganser
