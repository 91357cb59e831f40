#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace merganser {

// Reads the records of a .csv or .tsv file by RFC 4180: fields may be in
// quotation marks, with "" for a mark inside, and may then contain separators
// and line ends. Skips blank lines.
class CsvReader {
 public:
  CsvReader(
      std::filesystem::path path,
      std::string_view content,
      char separator);

  // Returns false at the end. Throws InputError with file and line for a quoted
  // field that does not end, and for text after its end.
  bool next(std::vector<std::string>& fields);

  // The first line of the record that next() read, from 1.
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
