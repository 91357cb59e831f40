#include <fstream>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "merganser/base/error.h"
#include "merganser/base/quote.h"
#include "merganser/text/dataset.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace merganser {

bool operator==(const TextExample& a, const TextExample& b) {
  return a.text == b.text && a.label == b.label && a.line == b.line &&
      a.text_pair == b.text_pair;
}
void PrintTo(const TextExample& example, std::ostream* out) {
  *out << quote(example.text) << ", " << example.label << ", line "
       << example.line << ", pair "
       << quote(example.text_pair.value_or("none"));
}

namespace {

using Examples = std::vector<TextExample>;

class ReadExamples : public testing::Test {
 protected:
  std::filesystem::path write(
      const std::string& name,
      const std::string& content) {
    std::ofstream(folder_ / name, std::ios::binary) << content;
    return folder_ / name;
  }
  Examples read(const std::string& name, const std::string& content) {
    return read_examples(write(name, content));
  }

  test::TemporaryFolder folder_;
};

TEST_F(ReadExamples, JsonLines) {
  EXPECT_EQ(
      read(
          "a.jsonl",
          R"({"text": "one", "label": 1})"
          "\n\n   \n"
          R"({"id": 7, "label": 0, "text": "\u0000 \ud83d\ude00 \u2028"})"
          "\r\n"
          R"({"text": "", "label": 2147483647})"),
      (Examples{
          {"one", 1, 1},
          {std::string("\0 \U0001F600 \u2028", 10), 0, 4},
          {"", 2147483647, 5}}));
}

TEST_F(ReadExamples, Csv) {
  EXPECT_EQ(
      read(
          "a.csv",
          "label,text,id\n"
          "1,plain \"quoted\" inside,x\n"
          "\n"
          "0,\"a \"\"mark\"\", a comma\r\nand a line\",\"y\"\r\n"
          "2,,z"),
      (Examples{
          {"plain \"quoted\" inside", 1, 2},
          {"a \"mark\", a comma\r\nand a line", 0, 4},
          {"", 2, 6}}));
}

TEST_F(ReadExamples, Tsv) {
  EXPECT_EQ(
      read("a.tsv", "text\tlabel\na, b\t1\n\"c\td\"\t0\n"),
      (Examples{{"a, b", 1, 2}, {"c\td", 0, 3}}));
}

TEST_F(ReadExamples, ByteOrderMark) {
  const Examples expected = {{"a", 1, 2}};
  EXPECT_EQ(read("a.csv", "\xEF\xBB\xBFtext,label\na,1\n"), expected);
  EXPECT_EQ(
      read("a.jsonl", "\xEF\xBB\xBF\n{\"text\":\"a\",\"label\":1}"), expected);
}

struct Refused {
  const char* file;
  std::string content;
  std::vector<const char*> message;
};

const std::string kGood = R"({"text": "a", "label": 0})"
                          "\n";

const Refused kRefused[] = {
    {"a.jsonl", "", {"a.jsonl", "no examples"}},
    {"a.jsonl", "\n \n", {"a.jsonl", "no examples"}},
    {"a.csv", "", {"a.csv", "no examples"}},
    {"a.csv", "text,label\n", {"a.csv", "no examples"}},
    {"a.txt", "a", {"a.txt", ".jsonl, .csv or .tsv"}},
    {"a.jsonl", kGood + "{\"text\": \"\xFF\"}\n", {"a.jsonl:2:", "UTF-8"}},
    {"a.csv", "text,label\na,1\nb\xC3,1\n", {"a.csv:3:", "UTF-8"}},
    {"a.jsonl", kGood + "{\"text\": ", {"a.jsonl:2:", "JSON"}},
    {"a.jsonl", kGood + "[1]", {"a.jsonl:2:", "object"}},
    {"a.jsonl", kGood + kGood + '\0', {"a.jsonl:3:", "JSON"}},
    {"a.jsonl",
     R"({"text": "a\ud800b", "label": 0})",
     {"a.jsonl:1:", "surrogate"}},
    {"a.jsonl",
     R"({"text": "\udc00", "label": 0})",
     {"a.jsonl:1:", "surrogate"}},
    {"a.jsonl",
     kGood + R"({"label": 0})",
     {"a.jsonl:2:", "\"text\"", "missing"}},
    {"a.jsonl", R"({"text": "a"})", {"a.jsonl:1:", "\"label\"", "missing"}},
    {"a.jsonl", R"({"text": 1, "label": 0})", {"a.jsonl:1:", "string"}},
    {"a.jsonl",
     R"({"text": "a", "label": 0, "text": "b"})",
     {":1:", "duplicate"}},
    {"a.jsonl", R"({"text": "a", "label": -1})", {":1:", "'-1'", "whole"}},
    {"a.jsonl", R"({"text": "a", "label": 1.5})", {":1:", "'1.5'", "whole"}},
    {"a.jsonl", R"({"text": "a", "label": true})", {":1:", "'true'", "whole"}},
    {"a.jsonl", R"({"text": "a", "label": null})", {":1:", "'null'", "whole"}},
    {"a.jsonl",
     R"({"text": "a", "label": "1"})",
     {":1:", "is the string '1', expected a whole"}},
    {"a.jsonl", R"({"text": "a", "label": 2147483648})", {":1:", "whole"}},
    {"a.jsonl",
     R"({"text": "a", "label": 18446744073709551615})",
     {":1:", "whole"}},
    {"a.csv", "texts,label\na,1\n", {"a.csv:1:", "\"text\""}},
    {"a.tsv", "text,label\na,1\n", {"a.tsv:1:", "\"text\""}},
    {"a.tsv", "\n\ntext\tlabels\na\t1\n", {"a.tsv:3:", "\"label\""}},
    {"a.csv", "text,sentence2,label\na,b,1\n", {":1:", "\"sentence2\"", "two"}},
    {"a.csv", "text,text2,label\na,b,1\n", {":1:", "\"text2\"", "text_pair"}},
    {"a.csv", "text,context,label\na,b,1\n", {":1:", "\"context\" next to"}},
    {"a.csv", "text,text,label\na,b,1\n", {":1:", "two columns \"text\""}},
    {"a.csv", "text,label,label\na,0,1\n", {":1:", "two columns \"label\""}},
    {"a.csv", "sentence1,label\na,1\n", {":1:", "no column \"text\""}},
    {"a.csv",
     "text,text_pair,sentence1,sentence2,label\na,b,c,d,1\n",
     {":1:", "\"sentence1\" next to \"text\""}},
    {"a.jsonl",
     kGood + R"({"text": "a", "text_pair": "b", "label": 0})",
     {"a.jsonl:2:", "one text", "line 1"}},
    {"a.jsonl",
     R"({"text": "a", "text_pair": "b", "label": 0})"
     "\n" +
         kGood,
     {"a.jsonl:2:", "two texts", "line 1"}},
    {"a.jsonl",
     R"({"text": "a", "text_pair": null, "label": 0})",
     {"a.jsonl:1:", "\"text_pair\" is not a string"}},
    {"a.jsonl",
     R"({"text": "a", "hypothesis": "b", "label": 0})",
     {"a.jsonl:1:", "\"hypothesis\" next to"}},
    {"a.csv",
     "text,label\na,1\nb\n",
     {"a.csv:3:", "expected 2 fields", "got 1"}},
    {"a.csv", "text,label\na,b,1\n", {"a.csv:2:", "2 fields", "got 3"}},
    {"a.csv", "text,label\na,-1\n", {"a.csv:2:", "'-1'", "whole"}},
    {"a.csv", "text,label\na,\n", {"a.csv:2:", "''", "whole"}},
    {"a.csv", "text,label\na, 1\n", {"a.csv:2:", "' 1'", "whole"}},
    {"a.csv", "text,label\na,+1\n", {"a.csv:2:", "'+1'", "whole"}},
    {"a.csv", "text,label\na,1x\n", {"a.csv:2:", "'1x'", "whole"}},
    {"a.csv", "text,label\na,1.\n", {"a.csv:2:", "'1.'", "whole"}},
    {"a.csv", "text,label\na,.0\n", {"a.csv:2:", "'.0'", "whole"}},
    {"a.csv", "text,label\na,1.5\n", {"a.csv:2:", "'1.5'", "whole"}},
    {"a.csv", "text,label\na,1e0\n", {"a.csv:2:", "'1e0'", "whole"}},
    {"a.csv", "text,label\na,good\n", {"a.csv:2:", "'good'", "id2label"}},
    {"a.csv", "text,label\na,2147483648\n", {"a.csv:2:", "whole"}},
    {"a.csv", "text,label\na,99999999999999999999\n", {"a.csv:2:", "whole"}},
    {"a.csv", "text,label\n\"a\n\n\"x,1\n", {"a.csv:4:", "closing"}},
    {"a.csv",
     "text,label\na,1\n\"b,1\nc,1\n",
     {"a.csv:3:", "unterminated quoted field"}},
};

TEST_F(ReadExamples, RefusesWithFileAndLine) {
  for (const Refused& refused : kRefused) {
    SCOPED_TRACE(refused.content);
    const std::filesystem::path path = write(refused.file, refused.content);
    for (const char* part : refused.message) {
      test::expect_error<InputError>([&] { read_examples(path); }, {part});
    }
  }
}

TEST_F(ReadExamples, WholeNumbersWrittenAsPandasDoes) {
  const Examples expected = {{"a", 1, 2}, {"b", 0, 3}, {"c", 12, 4}};
  EXPECT_EQ(read("a.csv", "text,label\na,1.0\nb,0.00\nc,12.0\n"), expected);
  EXPECT_EQ(
      read(
          "a.jsonl",
          "\n{\"text\": \"a\", \"label\": 1.0}\n"
          "{\"text\": \"b\", \"label\": 0.0}\n"
          "{\"text\": \"c\", \"label\": 1.2e1}"),
      expected);
}

TEST_F(ReadExamples, LabelNames) {
  const LabelNames names = {{"bad", 0}, {"good, really", 1}, {"2", 2}};
  EXPECT_EQ(
      read_examples(
          write("a.csv", "text,label\na,\"good, really\"\nb,0\nc,bad\nd,2\n"),
          names),
      (Examples{{"a", 1, 2}, {"b", 0, 3}, {"c", 0, 4}, {"d", 2, 5}}));
  EXPECT_EQ(
      read_examples(
          write(
              "a.jsonl",
              "{\"text\": \"a\", \"label\": \"good, really\"}\n"
              "{\"text\": \"b\", \"label\": 1}"),
          names),
      (Examples{{"a", 1, 1}, {"b", 1, 2}}));
}

TEST_F(ReadExamples, IgnoredLabelsMayBeMissing) {
  const auto read = [&](const char* name, const std::string& content) {
    return read_examples(write(name, content), {}, Labels::kIgnored);
  };
  const Examples expected = {{"a", 0, 2}, {"b", 0, 3}};
  EXPECT_EQ(read("a.csv", "text\na\nb\n"), expected);
  EXPECT_EQ(read("a.tsv", "text\tlabel\na\tgood\nb\t7\n"), expected);
  EXPECT_EQ(
      read("a.jsonl", "\n{\"text\": \"a\"}\n{\"text\": \"b\", \"label\": {}}"),
      expected);
}

TEST_F(ReadExamples, RefusesOtherNames) {
  const auto refuse = [&](const char* file,
                          const std::string& content,
                          const LabelNames& names,
                          std::vector<std::string> parts) {
    const std::filesystem::path path = write(file, content);
    for (const std::string& part : parts) {
      test::expect_error<InputError>(
          [&] { read_examples(path, names); }, {part});
    }
  };
  const LabelNames names = {{"bad", 0}, {"good", 1}};
  refuse(
      "a.csv",
      "text,label\na,Good\n",
      names,
      {"a.csv:2:", "'Good'", "('bad', 'good')"});
  refuse(
      "a.jsonl",
      R"({"text": "a", "label": "1"})",
      names,
      {"a.jsonl:1:", "'1'", "('bad', 'good')"});
  refuse(
      "a.csv",
      "text,label\na,2\nb,1\n",
      {{"1", 0}, {"2", 1}},
      {"a.csv:2:", "'2'", "name of class 1", "number of class 2"});
  LabelNames many;
  for (int i = 0; i < 12; ++i) {
    many[fmt::format("name{:02}", i)] = i;
  }
  refuse("a.csv", "text,label\na,x\n", many, {"'name09', ...)"});
}

TEST_F(ReadExamples, Pairs) {
  const Examples expected = {{"a, b", 1, 2, "c"}, {"d", 0, 3, ""}};
  for (const auto& [first, second] :
       std::vector<std::pair<std::string, std::string>>{
           {"text", "text_pair"},
           {"sentence1", "sentence2"},
           {"premise", "hypothesis"},
           {"question1", "question2"},
           {"question", "sentence"}}) {
    SCOPED_TRACE(first);
    EXPECT_EQ(
        read(
            "a.csv",
            fmt::format("{},label,{}\n\"a, b\",1,c\nd,0,\n", second, first)),
        (Examples{{"c", 1, 2, "a, b"}, {"", 0, 3, "d"}}));
    EXPECT_EQ(
        read(
            "a.jsonl",
            fmt::format(
                R"(
{{"{0}": "a, b", "{1}": "c", "label": 1}}
{{"{1}": "", "{0}": "d", "label": 0, "idx": 3}})",
                first,
                second)),
        expected);
  }
}

TEST_F(ReadExamples, RefusesAFileThatIsNotThere) {
  test::expect_error<InputError>(
      [&] { read_examples(folder_ / "none.csv"); }, {"none.csv"});
}

} // namespace
} // namespace merganser
