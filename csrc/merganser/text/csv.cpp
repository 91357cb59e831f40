#include "merganser/text/csv.h"

#include <fmt/format.h>

#include <algorithm>

#include "merganser/base/error.h"

namespace merganser {

CsvReader::CsvReader(
    std::filesystem::path path,
    std::string_view content,
    char separator)
    : path_(std::move(path)), rest_(content), separator_(separator) {}

std::string CsvReader::quoted_field() {
  const int64_t first_line = line_;
  std::string field;
  rest_.remove_prefix(1);
  while (true) {
    const size_t mark = rest_.find('"');
    if (mark == std::string_view::npos) {
      throw InputError(fmt::format(
          "{}:{}: unterminated quoted field; write \"\" for a quotation mark "
          "inside it",
          path_.string(),
          first_line));
    }
    field.append(rest_.substr(0, mark));
    line_ += std::count(rest_.begin(), rest_.begin() + mark, '\n');
    rest_.remove_prefix(mark + 1);
    if (!rest_.starts_with('"')) {
      break;
    }
    field.push_back('"');
    rest_.remove_prefix(1);
  }
  if (!rest_.empty() && rest_.front() != separator_ && rest_.front() != '\n' &&
      !rest_.starts_with("\r\n")) {
    throw InputError(fmt::format(
        "{}:{}: text after the closing quotation mark of a field",
        path_.string(),
        line_));
  }
  return field;
}

std::string CsvReader::plain_field() {
  const size_t end =
      std::min({rest_.find(separator_), rest_.find('\n'), rest_.size()});
  std::string field(rest_.substr(0, end));
  rest_.remove_prefix(end);
  if (field.ends_with('\r') && (rest_.empty() || rest_.front() == '\n')) {
    field.pop_back();
  }
  return field;
}

bool CsvReader::next(std::vector<std::string>& fields) {
  while (rest_.starts_with('\n') || rest_.starts_with("\r\n")) {
    rest_.remove_prefix(rest_.front() == '\r' ? 2 : 1);
    ++line_;
  }
  fields.clear();
  if (rest_.empty()) {
    return false;
  }
  record_line_ = line_;
  while (true) {
    fields.push_back(rest_.starts_with('"') ? quoted_field() : plain_field());
    if (rest_.starts_with(separator_)) {
      rest_.remove_prefix(1);
      continue;
    }
    if (!rest_.empty()) { // the line end
      rest_.remove_prefix(rest_.front() == '\r' ? 2 : 1);
      ++line_;
    }
    return true;
  }
}

} // namespace merganser
