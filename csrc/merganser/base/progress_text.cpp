#include "merganser/base/progress_text.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

namespace merganser {

namespace {

struct Scale {
  double divisor;
  const char* prefix;
};

// Bytes are counted in thousands; other units are shown unscaled.
Scale scale_for(double value, const std::string& unit) {
  if (unit != "B" || value < 1e3) {
    return {1, ""};
  }
  return value < 1e6 ? Scale{1e3, "k"}
      : value < 1e9  ? Scale{1e6, "M"}
      : value < 1e12 ? Scale{1e9, "G"}
                     : Scale{1e12, "T"};
}

std::string amount(double value, const Scale& scale) {
  return scale.divisor == 1 ? fmt::format("{:.0f}", value)
                            : fmt::format("{:.1f}", value / scale.divisor);
}

std::string rate_text(double rate, const std::string& unit) {
  const Scale scale = scale_for(rate, unit);
  const double value = rate / scale.divisor;
  return fmt::format(
      "{:.{}f}{}{}{}/s",
      value,
      value < 9.995 ? 2 : (value < 99.95 ? 1 : 0),
      unit == "B" ? " " : "",
      scale.prefix,
      unit == "B" ? unit : "");
}

std::string clock_text(double seconds) {
  const auto s = static_cast<int64_t>(std::llround(std::min(seconds, 3.6e8)));
  return s < 3600
      ? fmt::format("{}:{:02}", s / 60, s % 60)
      : fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
}

std::string bar(double share, int width) {
  const int filled = static_cast<int>(share * width);
  std::string result(static_cast<size_t>(width), ' ');
  std::fill_n(result.begin(), filled, '=');
  if (filled < width) {
    result[static_cast<size_t>(filled)] = '>';
  }
  return fmt::format("[{}] ", result);
}

// Keeps at most `columns` characters, each counted as one column wide.
std::string cut(const std::string& line, int columns) {
  int count = 0;
  for (size_t i = 0; i < line.size(); ++i) {
    const bool continues = (line[i] & 0xc0) == 0x80; // inside a UTF-8 character
    if (!continues && ++count > columns) {
      return line.substr(0, i);
    }
  }
  return line;
}

} // namespace

std::string progress_text(const ProgressState& state, int columns) {
  const auto done = static_cast<double>(state.done);
  const auto total = static_cast<double>(state.total);
  const bool known = state.total > 0;
  const Scale scale = scale_for(std::max(done, total), state.unit);

  std::string counts = amount(done, scale);
  if (known) {
    counts += fmt::format("/{}", amount(total, scale));
  }
  counts += fmt::format(" {}{}", scale.prefix, state.unit);
  const auto moved = static_cast<double>(state.done - state.first);
  if (moved > 0 && state.seconds > 0) {
    const double rate = moved / state.seconds;
    counts += ", " + rate_text(rate, state.unit);
    counts += known && state.done < state.total
        ? fmt::format(", {} left", clock_text((total - done) / rate))
        : fmt::format(", {}", clock_text(state.seconds));
  }
  if (!state.text.empty()) {
    counts += ", " + state.text;
  }

  std::string line = state.label + " ";
  if (known) {
    const double share = std::clamp(done / total, 0.0, 1.0);
    line += fmt::format("{:3.0f}% ", std::floor(share * 100));
    constexpr int kWidest = 30;
    constexpr int kNarrowest = 5;
    const int room =
        columns - static_cast<int>(line.size() + counts.size()) - 3;
    if (room >= kNarrowest) {
      line += bar(share, std::min(room, kWidest));
    }
  }
  line += counts;
  return columns > 0 ? cut(line, columns) : line;
}

} // namespace merganser
