#include "merganser/text/bert_normalizer.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "merganser/base/utf8.h"
#include "merganser/text/unicode.h"

namespace merganser {
namespace {

// Writes code points one by one, depending on the options decomposed, in
// canonical order, without nonspacing marks, in lower case.
class Writer {
 public:
  Writer(const BertNormalizer& options, std::string& out)
      : strip_(options.strip_accents), lower_(options.lowercase), out_(out) {}

  void put(char32_t c, unsigned property) {
    if (!strip_) {
      write(c, property);
    } else if (property & unicode::kDecomposes) {
      for (const char32_t part : unicode::decompose(c)) {
        order(part, properties_[part]);
      }
    } else {
      order(c, property);
    }
  }

  // Writes the buffered marks in canonical order.
  void flush() {
    if (marks_.empty()) {
      return;
    }
    std::stable_sort(
        marks_.begin(), marks_.end(), [](const auto& a, const auto& b) {
          return a.first < b.first;
        });
    for (const auto& [combining_class, c] : marks_) {
      write(c, properties_[c]);
    }
    marks_.clear();
  }

 private:
  void order(char32_t c, unsigned property) {
    if (property & unicode::kCombines) {
      marks_.emplace_back(unicode::combining_class(c), c);
      return;
    }
    flush();
    write(c, property);
  }

  void write(char32_t c, unsigned property) {
    if (strip_ && property & unicode::kNonspacingMark) {
      return; // only here: marks of class 0 separate the marks around them
    }
    if (lower_ && property & unicode::kHasLower) {
      unicode::append_lower(out_, c);
    } else {
      append_utf8(out_, c);
    }
  }

  bool strip_;
  bool lower_;
  std::string& out_;
  const std::vector<uint16_t>& properties_ = unicode::properties();
  std::vector<std::pair<uint8_t, char32_t>> marks_; // with combining class
};

} // namespace

void BertNormalizer::apply(std::string_view text, std::string& out) const {
  const std::vector<uint16_t>& properties = unicode::properties();
  const unsigned space = properties[U' '];
  out.clear();
  Writer writer(*this, out);
  for (size_t at = 0; at < text.size();) {
    char32_t c = next_code_point(text, at);
    unsigned property = properties[c];
    if (clean_text && property & unicode::kRemove) {
      continue;
    }
    if (clean_text && property & unicode::kSpace) {
      c = U' ';
      property = space;
    }
    const bool apart = handle_chinese_chars && property & unicode::kChinese;
    if (apart) {
      writer.put(U' ', space);
    }
    writer.put(c, property);
    if (apart) {
      writer.put(U' ', space);
    }
  }
  writer.flush();
}

} // namespace merganser
