#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>

#include "merganser/base/api.h"

namespace merganser {

// Reports progress: `done` of `total` units, and a short text such as
// "loss 0.412". Called from one thread.
using ProgressCallback =
    std::function<void(int64_t done, int64_t total, const std::string& text)>;

// A progress line on stderr: on a terminal a bar with rate and remaining time
// that redraws itself, otherwise a plain line every ten seconds, nothing when
// quiet. The rate counts from the first update, since resumed work starts with
// done > 0. The unit "B" is shown as kB, MB, GB.
class MERGANSER_API ProgressBar {
 public:
  ProgressBar(std::string label, std::string unit, bool quiet);
  ~ProgressBar(); // prints the last state and ends the line
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  void update(int64_t done, int64_t total, const std::string& text = "");
  ProgressCallback callback(); // valid as long as the bar is
  // Erases the line from a terminal, so that other output can take its place.
  void erase();

 private:
  void show(std::chrono::steady_clock::time_point now);

  std::string label_;
  std::string unit_;
  bool quiet_;
  bool terminal_;
  bool started_ = false;
  bool shown_ = false; // at least one line
  bool current_ = false; // the last update is on the screen
  int64_t first_ = 0; // `done` of the first update
  int64_t done_ = 0;
  int64_t total_ = 0;
  std::string text_;
  std::chrono::steady_clock::time_point start_;
  std::chrono::steady_clock::time_point last_; // time of the last line
};

} // namespace merganser
