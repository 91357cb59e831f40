#include <limits>
#include <unordered_set>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "merganser/base/error.h"
#include "merganser/base/quote.h"
#include "merganser/base/strict_json.h"
#include "merganser/io/safetensors_header.h"

namespace merganser {

namespace {

// Parses the JSON text event by event and accepts only this structure, so that
// neither deep nesting nor unknown parts are ever stored:
//   {"__metadata__": {text: text} or null,
//    name: {"dtype": text, "shape": [n...], "data_offsets": [begin, end]}}
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit HeaderReader(const std::string& file) : file_(file) {}

  SafetensorsHeader take() {
    return std::move(header_);
  }

  bool start_object(size_t) override {
    if (state_ == State::kStart) {
      state_ = State::kTop;
    } else if (state_ == State::kMetadataStart) {
      state_ = State::kMetadata;
    } else if (state_ == State::kTensorStart) {
      state_ = State::kTensor;
    } else {
      unexpected("an object");
    }
    return true;
  }

  bool key(string_t& key) override {
    if (state_ == State::kTop) {
      top_key(key);
    } else if (state_ == State::kMetadata) {
      metadata_key_ = key;
      state_ = State::kMetadataValue;
    } else {
      tensor_key(key);
    }
    return true;
  }

  bool string(string_t& text) override {
    if (state_ == State::kMetadataValue) {
      if (!header_.metadata.emplace(metadata_key_, text).second) {
        fail(fmt::format("has duplicate metadata {}", quote(metadata_key_)));
      }
      state_ = State::kMetadata;
    } else if (state_ == State::kDType) {
      const auto dtype = find_dtype(text);
      if (!dtype) {
        fail_tensor(fmt::format("unknown dtype {}", quote(text)));
      }
      current().info.dtype = *dtype;
      state_ = State::kTensor;
    } else {
      unexpected("a string");
    }
    return true;
  }

  bool start_array(size_t) override {
    if (state_ == State::kShapeStart) {
      state_ = State::kShape;
    } else if (state_ == State::kOffsetsStart) {
      state_ = State::kOffsets;
    } else {
      unexpected("an array");
    }
    return true;
  }

  bool number_unsigned(uint64_t value) override {
    if (state_ == State::kShape) {
      if (value > std::numeric_limits<int64_t>::max()) {
        fail_tensor(fmt::format("dimension {} is too large", value));
      }
      current().info.shape.push_back(static_cast<int64_t>(value));
    } else if (state_ == State::kOffsets && offsets_ < 2) {
      (offsets_ == 0 ? current().begin : current().end) = value;
      ++offsets_;
    } else {
      unexpected("a number");
    }
    return true;
  }

  bool end_array() override {
    if (state_ == State::kOffsets && offsets_ != 2) {
      fail_tensor("data_offsets must be two numbers");
    }
    state_ = State::kTensor;
    return true;
  }

  bool end_object() override {
    if (state_ == State::kTensor &&
        seen_ != (kDTypeSeen | kShapeSeen | kOffsetsSeen)) {
      fail_tensor("dtype, shape or data_offsets is missing");
    }
    state_ = state_ == State::kTop ? State::kEnd : State::kTop;
    return true;
  }

  // The safetensors package reads null metadata as none.
  bool null() override {
    if (state_ != State::kMetadataStart) {
      unexpected("null");
    }
    state_ = State::kTop;
    return true;
  }
  bool boolean(bool) override {
    unexpected("true or false");
  }
  bool number_integer(int64_t) override {
    unexpected("a negative number");
  }
  bool number_float(double, const string_t&) override {
    unexpected("a number that is not a 64-bit integer");
  }
  bool binary(binary_t&) override {
    unexpected("binary data");
  }
  bool parse_error(
      size_t position,
      const std::string&,
      const nlohmann::json::exception& error) override {
    fail(fmt::format(
        "is not valid JSON at byte {}: {}",
        position,
        json_reason(error.what())));
  }

 private:
  enum class State {
    kStart,
    kTop,
    kMetadataStart,
    kMetadata,
    kMetadataValue,
    kTensorStart,
    kTensor,
    kDType,
    kShapeStart,
    kShape,
    kOffsetsStart,
    kOffsets,
    kEnd,
  };
  static constexpr int kDTypeSeen = 1;
  static constexpr int kShapeSeen = 2;
  static constexpr int kOffsetsSeen = 4;

  void top_key(const std::string& key) {
    if (!names_.insert(key).second) {
      fail(fmt::format("has duplicate tensor {}", quote(key)));
    }
    if (key == "__metadata__") {
      state_ = State::kMetadataStart;
      return;
    }
    header_.tensors.emplace_back().info.name = key;
    seen_ = 0;
    offsets_ = 0;
    state_ = State::kTensorStart;
  }

  void tensor_key(const std::string& key) {
    int part = 0;
    if (key == "dtype") {
      part = kDTypeSeen;
      state_ = State::kDType;
    } else if (key == "shape") {
      part = kShapeSeen;
      state_ = State::kShapeStart;
    } else if (key == "data_offsets") {
      part = kOffsetsSeen;
      state_ = State::kOffsetsStart;
    } else {
      fail_tensor(fmt::format("unknown key {}", quote(key)));
    }
    if ((seen_ & part) != 0) {
      fail_tensor(fmt::format("duplicate key {}", quote(key)));
    }
    seen_ |= part;
  }

  PlacedTensor& current() {
    return header_.tensors.back();
  }

  [[noreturn]] void fail(const std::string& what) const {
    throw InputError(fmt::format("{}: the header {}", file_, what));
  }

  [[noreturn]] void fail_tensor(const std::string& what) {
    throw InputError(fmt::format(
        "{}: tensor {}: {}", file_, quote(current().info.name), what));
  }

  [[noreturn]] void unexpected(const std::string& what) {
    switch (state_) {
      case State::kStart:
      case State::kTop:
      case State::kEnd:
        fail("must be one object, not " + what);
      case State::kMetadataStart:
      case State::kMetadata:
      case State::kMetadataValue:
        fail("must have only strings as metadata, not " + what);
      case State::kTensorStart:
      case State::kTensor:
        fail_tensor("expected an object, got " + what);
      case State::kDType:
        fail_tensor("dtype: expected a string, got " + what);
      case State::kShapeStart:
      case State::kShape:
        fail_tensor("shape: expected non-negative integers, got " + what);
      case State::kOffsetsStart:
      case State::kOffsets:
        fail_tensor(
            "data_offsets: expected two non-negative integers, got " + what);
    }
    __builtin_unreachable();
  }

  const std::string& file_;
  SafetensorsHeader header_;
  std::unordered_set<std::string> names_;
  State state_ = State::kStart;
  std::string metadata_key_;
  int seen_ = 0;
  int offsets_ = 0;
};

} // namespace

SafetensorsHeader parse_header_json(
    std::string_view json,
    const std::string& file) {
  refuse_nul(json, file);
  HeaderReader reader(file);
  nlohmann::json::sax_parse(json.begin(), json.end(), &reader);
  return reader.take();
}

} // namespace merganser
