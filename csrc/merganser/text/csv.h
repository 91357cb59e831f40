#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace merganser {

// The records of a .csv or .tsv file, as RFC 4180 has them: fields may be in
// quotation marks, with "" for a mark inside, and then hold separators and line
// ends. Blank lines are passed over.
class CsvReader {
 public:
  CsvReader(
      std::filesystem::path path,
      std::string_view content,
      char separator);

  // False at the end. Throws InputError with file and line for a quotation
  // that does not end, or goes on behind its end.
  bool next(std::vector<std::string>& fields);

  // Where the record that next() gave begins, from 1.
  int64_t line() const {
    return record_line_;
  }

 private:
  std::string quoted_field();
  std::string plain_field();

  std::filesystem::path path_;
  std::string_view rest_;
  char separator_;
  int64_t line_ = 1;
  int64_t record_line_ = 1;
};

} // namespace merganser
