#include "merganser/engine/journal.h"

#include <fmt/format.h>

#include <sstream>

namespace merganser {

std::string FinishedTensor::to_line() const {
  std::string line =
      fmt::format("{} {} {} {}", tensor, clamped, largest_weight, nonfinite);
  for (const Digest& digest : digests) {
    line += fmt::format(" {} {}", digest.high, digest.low);
  }
  return line;
}

FinishedTensor FinishedTensor::parse(const std::string& line) {
  FinishedTensor found;
  std::istringstream in(line);
  in >> found.tensor >> found.clamped >> found.largest_weight >>
      found.nonfinite;
  for (Digest digest; in >> digest.high >> digest.low;) {
    found.digests.push_back(digest);
  }
  return found;
}

} // namespace merganser
