#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>

#include "io/api.h"

namespace merganser {

// What long work reports. `done` of `total` units, and a short text such as
// "loss 0.412". Called from one thread.
using ProgressCallback =
    std::function<void(int64_t done, int64_t total, const std::string& text)>;

// A progress line on stderr: a bar with rate and remaining time that redraws
// itself on a terminal, a plain line every ten seconds otherwise, nothing when
// quiet.
class MERGANSER_API ProgressBar {
 public:
  ProgressBar(std::string label, std::string unit, bool quiet);
  ~ProgressBar(); // ends the line
  void update(int64_t done, int64_t total, const std::string& text = "");
  ProgressCallback callback();

 private:
  std::string label_;
  std::string unit_;
  bool quiet_;
  bool terminal_;
  bool drawn_ = false;
  std::chrono::steady_clock::time_point start_;
  std::chrono::steady_clock::time_point last_;
};

} // namespace merganser
