#include "merganser/io/fisher_file.h"

#include <fmt/format.h>

#include <charconv>

#include "merganser/base/error.h"

namespace merganser {
namespace {

constexpr const char* kFormatVersion = "1";
constexpr const char* kTaskVector = "task_vector";

class Reader {
 public:
  Reader(const Metadata& metadata, const std::filesystem::path& file)
      : metadata_(metadata), file_(file) {}

  const std::string& text(const char* key) const {
    const auto found = metadata_.find(key);
    if (found == metadata_.end()) {
      throw InputError(fmt::format(
          "{}: the metadata key '{}' is missing; estimate the Fisher again",
          file_.string(),
          key));
    }
    return found->second;
  }

  template <typename Integer>
  Integer integer(const char* key, Integer min) const {
    const std::string& value = text(key);
    Integer number = 0;
    const char* end = value.data() + value.size();
    const auto result = std::from_chars(value.data(), end, number);
    if (result.ec != std::errc() || result.ptr != end || number < min) {
      throw InputError(fmt::format(
          "{}: the metadata key '{}' must be an integer of at least {}, not "
          "'{}'",
          file_.string(),
          key,
          min,
          value));
    }
    return number;
  }

 private:
  const Metadata& metadata_;
  const std::filesystem::path& file_;
};

} // namespace

Metadata FisherMetadata::to_metadata() const {
  Metadata metadata = {
      {"format_version", kFormatVersion},
      {"estimator", estimator},
      {"num_examples", std::to_string(num_examples)},
      {"num_examples_used", std::to_string(num_examples_used)},
      {"samples", std::to_string(samples)},
      {"seed", std::to_string(seed)},
      {"labels", labels},
      {"base_model_hash", base_model_hash},
  };
  if (task_vector) {
    metadata.emplace(kTaskVector, task_vector->to_json());
  }
  return metadata;
}

std::optional<FisherMetadata> FisherMetadata::parse(
    const Metadata& metadata,
    const std::filesystem::path& file) {
  const auto version = metadata.find("format_version");
  if (version == metadata.end()) {
    return std::nullopt;
  }
  if (version->second != kFormatVersion) {
    throw InputError(fmt::format(
        "{}: unknown Fisher format version '{}', expected {}; a newer "
        "Merganser may read it",
        file.string(),
        version->second,
        kFormatVersion));
  }
  const Reader reader(metadata, file);
  const auto hash = metadata.find("base_model_hash");
  const auto along = metadata.find(kTaskVector);
  return FisherMetadata{
      .estimator = reader.text("estimator"),
      .num_examples = reader.integer<int64_t>("num_examples", 1),
      .num_examples_used = reader.integer<int64_t>("num_examples_used", 1),
      .samples = reader.integer<int64_t>("samples", 0),
      .seed = reader.integer<uint64_t>("seed", 0),
      .labels = reader.text("labels"),
      .base_model_hash = hash == metadata.end() ? "" : hash->second,
      .task_vector = along == metadata.end()
          ? std::nullopt
          : std::optional(TaskVectorStatistics::parse(along->second, file))};
}

} // namespace merganser
