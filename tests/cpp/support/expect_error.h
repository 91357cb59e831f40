#pragma once

#include <gtest/gtest.h>

#include <initializer_list>
#include <string>

#include "merganser/base/error.h"

namespace merganser::test {

// Runs `work`, which must throw exactly a Problem whose one sentence contains
// all `parts`.
template <typename Problem, typename Work>
void expect_error(Work&& work, std::initializer_list<std::string> parts) {
  try {
    work();
  } catch (const Problem& error) {
    EXPECT_EQ(typeid(error), typeid(Problem)) << error.what();
    const std::string message = error.what();
    for (const std::string& part : parts) {
      EXPECT_NE(message.find(part), std::string::npos)
          << "'" << part << "' is not in: " << message;
    }
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    return;
  }
  ADD_FAILURE() << "nothing was thrown";
}

} // namespace merganser::test
