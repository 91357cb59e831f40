#include "merganser/engine/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "merganser/base/json_text.h"
#include "merganser/base/text_table.h"

namespace merganser {
namespace {

// Share of clamped denominators above which a report notes what it means.
constexpr double kMuchClamped = 0.05;

double share(int64_t count, int64_t total) {
  return static_cast<double>(count) /
      static_cast<double>(std::max(total, int64_t{1}));
}

std::string fisher_text(const MergeReport& report) {
  const double clamped = share(report.clamped, report.clampable);
  std::string text;
  if (report.has_denominators) {
    text += fmt::format(
        "{:.2f} % of the denominators were clamped, largest weight {:.3g}\n",
        100 * clamped,
        report.largest_weight);
    if (clamped > kMuchClamped) {
      text +=
          "note: where denominators are clamped, the base's Fisher does not "
          "contain the removed data's, and the result is task negation\n";
    }
  } else if (report.clampable > 0) {
    text += fmt::format(
        "{:.2f} % of the Fisher values were raised to floor\n", 100 * clamped);
  }
  return text;
}

} // namespace

std::string MergeReport::to_text() const {
  std::string text = fmt::format(
      "{} tensors merged by {}, {} copied; {} read, {} written in {:.2f} s\n",
      tensors_merged,
      method,
      tensors_copied,
      format_bytes(bytes_read),
      format_bytes(bytes_written),
      seconds);
  text += fisher_text(*this);
  if (nonfinite > 0) {
    text +=
        fmt::format("{} elements of the result are not finite\n", nonfinite);
  }
  if (tensors_resumed > 0) {
    text +=
        fmt::format("{} tensors finished by an earlier run\n", tensors_resumed);
  }
  for (const std::string& note : notes) {
    text += fmt::format("note: {}\n", note);
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
      {"seconds", seconds},
      {"notes", notes}};
  if (has_denominators || clampable > 0) {
    json["clamped"] = clamped;
    json["clamped_fraction"] = share(clamped, clampable);
  }
  if (tensors_without_fisher > 0) {
    json["tensors_without_fisher"] = tensors_without_fisher;
  }
  if (has_denominators) {
    json["largest_weight"] = largest_weight;
  }
  return json_text(json, 2);
}

} // namespace merganser
