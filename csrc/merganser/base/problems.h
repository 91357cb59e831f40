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

// Several errors at once: what() lists them all.
class MERGANSER_API InputErrors : public InputError {
 public:
  explicit InputErrors(std::vector<std::string> sentences)
      : InputError(fmt::format(
            "found {} problems:\n  {}",
            sentences.size(),
            fmt::join(sentences, "\n  "))),
        sentences_(std::move(sentences)) {}

  const std::vector<std::string>& sentences() const {
    return sentences_;
  }

 private:
  std::vector<std::string> sentences_;
};

// Collects the errors of a recipe or of the inputs of a merge, so that users
// see all of them at once.
class Problems {
 public:
  // Adds a problem once, even if several checks find it.
  void add(std::string sentence) {
    if (std::ranges::find(sentences_, sentence) == sentences_.end()) {
      sentences_.push_back(std::move(sentence));
    }
  }

  bool any() const {
    return !sentences_.empty();
  }

  // Runs `work` and adds the error or errors that it throws.
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

  // Throws a single sentence unchanged, several as InputErrors. For sentences
  // that name their place.
  void throw_if_any() const {
    if (sentences_.size() == 1) {
      throw InputError(sentences_[0]);
    }
    if (any()) {
      throw InputErrors(sentences_);
    }
  }

  // Names the recipe before the sentences.
  void throw_if_any(const std::string& recipe) const {
    if (sentences_.size() == 1) {
      throw InputError(
          fmt::format("{} cannot be merged: {}", recipe, sentences_[0]));
    }
    if (any()) {
      throw InputError(fmt::format(
          "{} cannot be merged; found {} problems:\n  {}",
          recipe,
          sentences_.size(),
          fmt::join(sentences_, "\n  ")));
    }
  }

 private:
  std::vector<std::string> sentences_;
};

} // namespace merganser
