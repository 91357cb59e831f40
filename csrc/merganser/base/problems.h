#pragma once

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/base/error.h"

namespace merganser {

// Several at a time: what() lists them all.
class MERGANSER_API InputErrors : public InputError {
 public:
  explicit InputErrors(std::vector<std::string> sentences)
      : InputError(fmt::format(
            "there are {} problems:\n  {}",
            sentences.size(),
            fmt::join(sentences, "\n  "))),
        sentences_(std::move(sentences)) {}

  const std::vector<std::string>& sentences() const {
    return sentences_;
  }

 private:
  std::vector<std::string> sentences_;
};

// What is wrong with a recipe or with the inputs of a merge, gathered so that
// users see all of it at once.
class Problems {
 public:
  // Once, if several checks find it.
  void add(std::string sentence) {
    if (std::ranges::find(sentences_, sentence) == sentences_.end()) {
      sentences_.push_back(std::move(sentence));
    }
  }

  bool any() const {
    return !sentences_.empty();
  }

  // Runs `work`; the error that it ends with is one more problem, or several.
  template <typename Work>
  void collect(const Work& work) {
    try {
      work();
    } catch (const Interrupted&) {
      throw;
    } catch (const InputErrors& errors) {
      for (const std::string& sentence : errors.sentences()) {
        add(sentence);
      }
    } catch (const Error& error) {
      add(error.what());
    }
  }

  // Of sentences that say where they belong to: one as it is, or InputErrors.
  void throw_if_any() const {
    if (sentences_.size() == 1) {
      throw InputError(sentences_[0]);
    }
    if (any()) {
      throw InputErrors(sentences_);
    }
  }

  void throw_if_any(const std::string& recipe) const {
    if (sentences_.size() == 1) {
      throw InputError(
          fmt::format("{} cannot be merged: {}", recipe, sentences_[0]));
    }
    if (any()) {
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
