#include "merganser/plan/downloads.h"

#include <fmt/format.h>

#include <algorithm>

#include "merganser/base/quote.h"
#include "merganser/base/text_table.h"

namespace merganser {

std::vector<HeaderOnly> downloads_of(const MergePlan& plan) {
  std::vector<HeaderOnly> downloads;
  for (const auto& input : plan.inputs) {
    auto found = find_header_only(input->path());
    if (found &&
        std::ranges::find(downloads, found->model, &HeaderOnly::model) ==
            downloads.end()) {
      downloads.push_back(std::move(*found));
    }
  }
  return downloads;
}

std::string list_names(const std::vector<HeaderOnly>& downloads) {
  std::vector<std::string> names;
  std::ranges::transform(
      downloads, std::back_inserter(names), &HeaderOnly::model);
  return list_some(names);
}

void note_downloads(MergePlan& plan) {
  const std::vector<HeaderOnly> downloads = downloads_of(plan);
  if (downloads.empty()) {
    return;
  }
  uint64_t bytes = 0;
  for (const HeaderOnly& download : downloads) {
    bytes += download.bytes;
  }
  plan.notes.push_back(fmt::format(
      "not downloaded: {} ({}); planned from headers, as if integers, tied "
      "tensors and tensors without a Fisher were equal, which the merge checks",
      list_names(downloads),
      format_bytes(bytes)));
}

} // namespace merganser
