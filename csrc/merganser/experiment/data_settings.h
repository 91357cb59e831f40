#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "merganser/io/yaml_value.h"

namespace merganser {

struct ExperimentData {
  std::string name;
  std::filesystem::path train;
  std::filesystem::path test;
  int64_t limit_train = -1; // random examples of the file; -1: all
  int64_t limit_test = -1;
};

// Parses `data`.
std::vector<ExperimentData> parse_data(
    const YamlValue& mapping,
    const std::filesystem::path& folder);

// Parses `validation`: a share below 1, or a number of examples.
double parse_validation(const YamlValue& value);

} // namespace merganser
