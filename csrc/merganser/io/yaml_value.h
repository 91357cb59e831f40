#pragma once

#include <yaml-cpp/node/node.h>

#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/base/error.h"

namespace merganser {

class Problems;

// A value of a YAML file that knows its place: every error about it is an
// InputError that begins with file:line:column and names the key.
class MERGANSER_API YamlValue {
 public:
  // Parses a text of one document; `source` is the file named in errors.
  static YamlValue parse(const std::string& yaml, const std::string& source);
  static YamlValue load(const std::filesystem::path& path);
  // A document that a program has built; errors name `source` alone.
  static YamlValue of(YAML::Node root, const std::string& source);

  // Defined in the source: users see only the declaration of yaml-cpp's node.
  YamlValue(const YamlValue&);
  YamlValue& operator=(const YamlValue&);
  ~YamlValue();

  // Mappings, in which `<<: *anchor` and `<<: [*anchor, ...]` add the keys that
  // are missing, as in YAML 1.1: the mapping's own keys come before those of
  // the first anchor, these before the second's. expect_keys refuses unknown
  // and duplicate keys; it throws them, or adds them to `problems`. It always
  // throws if this is not a mapping.
  bool is_mapping() const;
  void expect_keys(std::span<const std::string_view> known) const;
  void expect_keys(std::initializer_list<std::string_view> known) const {
    expect_keys(std::span(known.begin(), known.size()));
  }
  void expect_keys(std::span<const std::string_view> known, Problems& problems)
      const;
  std::optional<YamlValue> find(std::string_view key) const;
  // The same, but null ("key:" with nothing after it) counts as missing.
  std::optional<YamlValue> given(std::string_view key) const;
  YamlValue at(std::string_view key) const; // throws if missing

  // The entries of a mapping whose keys are the user's names: at least one.
  std::vector<std::pair<std::string, YamlValue>> entries() const;

  // Lists of at least one item.
  bool is_list() const;
  std::vector<YamlValue> items() const;

  // Scalars. Numbers must be finite and in [min, max].
  // Paths are relative to `folder`.
  std::string text() const;
  bool is_text(std::string_view text) const; // a scalar of this text
  std::filesystem::path path(const std::filesystem::path& folder) const;
  bool boolean() const;
  bool flag() const; // true or false, or 1 or 0
  double number(
      double min = std::numeric_limits<double>::lowest(),
      double max = std::numeric_limits<double>::max()) const;
  double positive(double max = std::numeric_limits<double>::max()) const;
  int64_t integer(
      int64_t min = std::numeric_limits<int64_t>::min(),
      int64_t max = std::numeric_limits<int64_t>::max()) const;

  // A copy in which one value is replaced or added: "train.lr=1e-5",
  // "merges.2.weight={sweep: [0.5, 1]}". Keys and positions in lists, from 0,
  // are separated by dots; what follows the first '=' is YAML. Missing mappings
  // are created. Errors about the new value name its key, but no place.
  YamlValue with(std::string_view assignment) const;

  std::string to_yaml() const; // without comments

  // Applies a parser to text(); its InputError gets this value's place.
  template <typename Parser>
  decltype(auto) through(const Parser& parser) const {
    const std::string value = text();
    try {
      return parser(value);
    } catch (const InputError& error) {
      fail(error.what());
    }
  }

  // Throws "recipe.yaml:3:7: " and the message.
  [[noreturn]] void fail(std::string_view message) const;

  // "models[1].parameters"; empty for the whole document.
  const std::string& name() const {
    return name_;
  }

 private:
  YamlValue(YAML::Node node, std::string source, std::string name);
  // The mapping and those that it merges, in the order in which a key is
  // searched; throws if one is not a mapping.
  std::vector<YAML::Node> mappings() const;
  void add_mappings(const YAML::Node& mapping, std::vector<YAML::Node>& found)
      const;
  YAML::Node replaced(std::string_view path, const YAML::Node& value) const;
  // The keys of a mapping; throws if one is duplicate.
  std::vector<YAML::Node> keys() const;
  [[noreturn]] void fail_type(std::string_view expected) const;

  YAML::Node node_;
  std::string source_;
  std::string name_;
};

} // namespace merganser
