#pragma once

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <string>
#include <vector>

#include "io/error.h"

namespace merganser {

// What is wrong with the inputs of a merge, gathered so that users see all of
// it at once.
class Problems {
 public:
  void add(std::string sentence) {
    sentences_.push_back(std::move(sentence));
  }

  // Runs `work`; the error that it ends with is one more problem.
  template <typename Work>
  void collect(const Work& work) {
    try {
      work();
    } catch (const Interrupted&) {
      throw;
    } catch (const Error& error) {
      add(error.what());
    }
  }

  void throw_if_any(const std::string& recipe) const {
    if (sentences_.size() == 1) {
      throw InputError(
          fmt::format("{} cannot be merged: {}", recipe, sentences_[0]));
    }
    if (!sentences_.empty()) {
      throw InputError(fmt::format(
          "{} cannot be merged, {} problems:\n  {}",
          recipe,
          sentences_.size(),
          fmt::join(sentences_, "\n  ")));
    }
  }

 private:
  std::vector<std::string> sentences_;
};

} // namespace merganser
