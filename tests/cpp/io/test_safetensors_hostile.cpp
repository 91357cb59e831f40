#include <gtest/gtest.h>

#include <fmt/format.h>
#include <sys/stat.h>

#include "merganser/io/safetensors.h"
#include "raw_safetensors.h"
#include "support/expect_error.h"

// Headers with one error each. Every one must end in an InputError that names
// the file, the tensor if there is one, and the error.

namespace merganser {
namespace {

struct Case {
  std::string id;
  std::string bytes; // of the whole file
  std::initializer_list<std::string> parts; // of the message
};

std::string header(std::string_view json, size_t data_size = 4) {
  return test::raw_safetensors(json, std::string(data_size, 'x'));
}

// One tensor 'w' of four bytes with other parts.
std::string tensor(std::string_view parts, size_t data_size = 4) {
  return header(fmt::format(R"({{"w":{{{}}}}})", parts), data_size);
}

std::string repeated(std::string_view text, size_t count) {
  std::string result;
  for (size_t i = 0; i < count; ++i) {
    result += text;
  }
  return result;
}

const Case kCases[] = {
    // The length.
    {"EmptyFile", "", {"has 0 bytes", "too few"}},
    {"SevenBytes", "1234567", {"has 7 bytes"}},
    {"LengthOfAllOnes", std::string(8, '\xff') + "{}", {"100000000"}},
    {"LengthJustTooLarge",
     std::string("\x01\xe1\xf5\x05\0\0\0\0{}", 10),
     {"100000001", "100000000"}},
    {"LengthBeyondTheFile",
     std::string("\x03\0\0\0\0\0\0\0{}", 10),
     {"does not fit", "truncated"}},
    {"NoHeader", std::string(8, '\0'), {"not valid JSON"}},
    // JSON.
    {"NotJson", header("hello"), {"not valid JSON"}},
    {"Unfinished", header(R"({"w":)"), {"not valid JSON"}},
    {"TwoValues", header("{}{}", 0), {"not valid JSON"}},
    {"NulPadding", header(std::string("{}\0\0", 4), 0), {"not valid JSON"}},
    {"Array", header("[]"), {"must be one object", "an array"}},
    {"Number", header("7"), {"must be one object", "a number"}},
    {"Comment", header("{/**/}"), {"not valid JSON"}},
    {"InvalidUtf8", header("{\"w\xff\":{}}"), {"not valid JSON", "UTF-8"}},
    {"OverlongUtf8", header("{\"w\xc0\x80\":{}}"), {"not valid JSON", "UTF-8"}},
    {"EncodedSurrogate",
     header("{\"w\xed\xa0\x80\":{}}"),
     {"not valid JSON", "UTF-8"}},
    {"LoneHighSurrogate",
     header(R"({"w\ud800":{}})"),
     {"not valid JSON", "surrogate"}},
    {"LoneLowSurrogate",
     header(R"({"__metadata__":{"k":"\udc00"}})"),
     {"not valid JSON", "surrogate"}},
    {"NestedArrays", header(repeated("[", 5'000'000)), {"must be one object"}},
    {"NestedObjects",
     header(repeated(R"({"a":)", 1'000'000)),
     {"'a'", "unknown key 'a'"}},
    {"NestedShape",
     tensor(R"("shape":)" + repeated("[", 1'000'000)),
     {"'w'", "shape"}},
    // Names.
    {"DuplicateTensor",
     header(R"({"w":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
            R"("w":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})"),
     {"'w'", "duplicate"}},
    {"DuplicateByEscape",
     header(R"({"w":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
            R"("\u0077":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})"),
     {"'w'", "duplicate"}},
    {"TerminalEscape",
     header(R"({"w\u001b[2J":7})"),
     {R"('w\x1b[2J')", "expected an object"}},
    {"TensorIsNoObject", header(R"({"w":[1]})"), {"'w'", "an array"}},
    {"TensorIsNull", header(R"({"w":null})"), {"'w'", "null"}},
    // Metadata.
    {"MetadataNumber",
     header(R"({"__metadata__":{"k":1}})"),
     {"metadata", "a number"}},
    {"MetadataNested",
     header(R"({"__metadata__":{"k":{}}})"),
     {"metadata", "an object"}},
    {"MetadataString", header(R"({"__metadata__":"k"})"), {"metadata"}},
    {"MetadataValueNull",
     header(R"({"__metadata__":{"k":null}})"),
     {"metadata", "null"}},
    {"MetadataNullTwice",
     header(R"({"__metadata__":null,"__metadata__":null})"),
     {"duplicate", "__metadata__"}},
    {"MetadataDuplicateKey",
     header(R"({"__metadata__":{"k":"1","k":"2"}})"),
     {"metadata 'k'", "duplicate"}},
    {"MetadataTwice",
     header(R"({"__metadata__":{},"__metadata__":{}})", 0),
     {"__metadata__", "duplicate"}},
    // Parts of a tensor.
    {"NoParts", tensor(""), {"'w'", "missing"}},
    {"NoDtype", tensor(R"("shape":[4],"data_offsets":[0,4])"), {"missing"}},
    {"NoShape", tensor(R"("dtype":"U8","data_offsets":[0,4])"), {"missing"}},
    {"NoOffsets", tensor(R"("dtype":"U8","shape":[4])"), {"'w'", "missing"}},
    {"UnknownDtype",
     tensor(R"("dtype":"F33","shape":[1],"data_offsets":[0,4])"),
     {"'w'", "unknown dtype 'F33'"}},
    {"DtypeNumber",
     tensor(R"("dtype":3,"shape":[1],"data_offsets":[0,4])"),
     {"'w'", "dtype", "a number"}},
    {"UnknownKey",
     tensor(R"("dtype":"U8","shape":[4],"data_offsets":[0,4],"scale":2)"),
     {"'w'", "unknown key 'scale'"}},
    {"KeyTwice",
     tensor(R"("dtype":"U8","shape":[4],"shape":[4],"data_offsets":[0,4])"),
     {"'w'", "'shape'", "duplicate"}},
    // Shape.
    {"NegativeDimension",
     tensor(R"("dtype":"U8","shape":[-4],"data_offsets":[0,4])"),
     {"'w'", "shape", "negative"}},
    {"FractionalDimension",
     tensor(R"("dtype":"U8","shape":[4.0],"data_offsets":[0,4])"),
     {"'w'", "shape"}},
    {"TextDimension",
     tensor(R"("dtype":"U8","shape":["4"],"data_offsets":[0,4])"),
     {"'w'", "shape", "a string"}},
    {"DimensionBeyond63Bits",
     tensor(
         R"("dtype":"U8","shape":[9223372036854775808],"data_offsets":[0,4])"),
     {"'w'", "too large"}},
    {"DimensionBeyond64Bits",
     tensor(
         R"("dtype":"U8","shape":[99999999999999999999],"data_offsets":[0,4])"),
     {"'w'", "shape"}},
    // 2^32 * 2^32 = 0 modulo 2^64.
    {"ProductOverflows",
     tensor(
         R"("dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0])",
         0),
     {"'w'", "2^63"}},
    {"BytesOverflow",
     tensor(
         R"("dtype":"F64","shape":[2305843009213693952],"data_offsets":[0,0])",
         0),
     {"'w'", "2^61"}},
    {"HalfAByte",
     tensor(R"("dtype":"F4","shape":[7],"data_offsets":[0,4])"),
     {"'w'", "whole number of bytes"}},
    // Offsets.
    {"OneOffset",
     tensor(R"("dtype":"U8","shape":[4],"data_offsets":[0])"),
     {"'w'", "two numbers"}},
    {"ThreeOffsets",
     tensor(R"("dtype":"U8","shape":[4],"data_offsets":[0,4,4])"),
     {"'w'", "data_offsets"}},
    {"NegativeOffset",
     tensor(R"("dtype":"U8","shape":[4],"data_offsets":[-4,0])"),
     {"'w'", "data_offsets", "negative"}},
    {"Backwards",
     tensor(R"("dtype":"U8","shape":[4],"data_offsets":[4,0])"),
     {"'w'", "ends before it begins"}},
    {"WrongSize",
     tensor(R"("dtype":"U8","shape":[3],"data_offsets":[0,4])"),
     {"'w'", "U8 [3] has 3 bytes", "span 4"}},
    {"BeyondTheFile",
     tensor(R"("dtype":"U8","shape":[5],"data_offsets":[0,5])"),
     {"'w'", "holds 4", "truncated"}},
    {"OffsetsNear64Bits",
     tensor(R"("dtype":"U8","shape":[4],)"
            R"("data_offsets":[18446744073709551611,18446744073709551615])"),
     {"'w'"}},
    {"HoleAtTheStart",
     tensor(R"("dtype":"U8","shape":[3],"data_offsets":[1,4])"),
     {"'w'", "gap"}},
    {"HoleInside",
     header(R"({"v":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
            R"("w":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}})"),
     {"'w'", "gap"}},
    {"Overlap",
     header(R"({"v":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},)"
            R"("w":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}})"),
     {"'w'", "overlap"}},
    {"SamePlace",
     header(R"({"v":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
            R"("w":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})"),
     {"'w'", "overlap"}},
    {"EmptyTensorInside",
     header(R"({"v":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
            R"("w":{"dtype":"U8","shape":[0],"data_offsets":[2,2]}})"),
     {"'w'"}},
    {"RemainderAtTheEnd",
     tensor(R"("dtype":"U8","shape":[3],"data_offsets":[0,3])"),
     {"1 bytes follow the last tensor"}},
    {"DataWithoutTensors", header("{}"), {"4 bytes follow"}},
};

class Hostile : public testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(
    Headers,
    Hostile,
    testing::ValuesIn(kCases),
    [](const auto& info) { return info.param.id; });

TEST_P(Hostile, IsRefusedByName) {
  test::TemporaryFolder folder;
  const auto path =
      test::write_bytes(folder / "bad.safetensors", GetParam().bytes);
  try {
    SafetensorsFile file(path);
    FAIL() << "was accepted";
  } catch (const InputError& error) {
    const std::string message = error.what();
    EXPECT_TRUE(message.starts_with(path.string() + ": ")) << message;
    EXPECT_LT(message.size(), path.string().size() + 300) << message;
    for (const std::string& part : GetParam().parts) {
      EXPECT_NE(message.find(part), std::string::npos)
          << "'" << part << "' is not in: " << message;
    }
    for (const char c : message) {
      EXPECT_GE(static_cast<unsigned char>(c), 0x20) << message;
    }
  }
}

TEST(HostilePath, NoRegularFile) {
  test::TemporaryFolder folder;
  using test::expect_error;
  expect_error<InputError>(
      [&] { SafetensorsFile file(folder.path()); },
      {folder.path().string(), "regular file"});
  expect_error<InputError>(
      [&] { SafetensorsFile file(folder / "absent"); },
      {"absent", "No such file"});
  expect_error<InputError>(
      [&] { SafetensorsFile file("/dev/zero"); }, {"/dev/zero", "regular"});
  const std::string pipe = folder / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  expect_error<InputError>(
      [&] { SafetensorsFile file(pipe); }, {pipe, "regular"});
}

} // namespace
} // namespace merganser
