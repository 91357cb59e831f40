#include "merganser/search/trial_journal.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "merganser/base/error.h"
#include "merganser/base/json_text.h"
#include "merganser/io/atomic_file.h"

namespace merganser {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr const char* kFile = "trials.jsonl";
constexpr const char* kLock = ".lock";

// The file that a lock needs, in the search's directory.
fs::path prepare(const fs::path& out) {
  const fs::file_status status = fs::status(out);
  if (fs::exists(status) && !fs::is_directory(status)) {
    throw InputError(fmt::format(
        "{}: exists and is not a directory; choose another output path",
        out.string()));
  }
  const auto is_ours = [](const fs::directory_entry& entry) {
    return entry.path().filename() == kLock ||
        entry.path().filename() == "best.yaml";
  };
  const bool continues = fs::exists(out / kLock) &&
      (fs::exists(out / kFile) ||
       std::ranges::all_of(fs::directory_iterator(out), is_ours));
  if (fs::exists(status) && !continues && !fs::is_empty(out)) {
    throw InputError(fmt::format(
        "{}: not empty and not a search's directory; choose another output "
        "path",
        out.string()));
  }
  std::error_code error;
  fs::create_directories(out, error);
  if (error) {
    throw Error(fmt::format(
        "cannot create directory {}: {}", out.string(), error.message()));
  }
  return out / kLock;
}

std::vector<std::string> differences(const Json& found, const Json& wanted) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : wanted.items()) {
    if (!found.contains(key) || found.at(key) != value) {
      keys.push_back(key);
    }
  }
  return keys;
}

// The lines that an earlier run completed; the rest of the file is removed.
std::vector<Json> read_lines(const fs::path& file) {
  const std::string text = read_file(file);
  std::vector<Json> lines;
  size_t begin = 0;
  for (size_t end = text.find('\n'); end != text.npos;
       end = text.find('\n', begin)) {
    lines.push_back(parse_json(text.substr(begin, end - begin)));
    begin = end + 1;
  }
  fs::resize_file(file, begin);
  return lines;
}

} // namespace

TrialJournal::TrialJournal(const fs::path& out, const Json& description)
    : file_(out / kFile), lock_(prepare(out)) {
  std::vector<Json> lines;
  if (fs::exists(file_)) {
    try {
      lines = read_lines(file_);
      for (size_t i = 1; i < lines.size(); ++i) {
        earlier_.push_back(trial_from_json(lines[i]));
      }
    } catch (const Json::exception&) {
      throw InputError(
          fmt::format("{}: damaged; delete it to start again", file_.string()));
    }
  }
  if (!lines.empty()) {
    const std::vector<std::string> keys = differences(lines[0], description);
    if (!keys.empty()) {
      throw InputError(fmt::format(
          "{}: contains another search, with another {}; choose another "
          "output path",
          out.string(),
          fmt::join(keys, ", ")));
    }
  }
  stream_.open(file_, std::ios::binary | std::ios::app);
  if (lines.empty()) {
    add(description);
  }
}

void TrialJournal::add(const Json& line) {
  stream_ << json_text(line) << '\n';
  stream_.flush();
  if (!stream_) {
    throw Error(fmt::format(
        "cannot write {}: is the disk full or the directory read-only?",
        file_.string()));
  }
}

} // namespace merganser
