#pragma once

#include <initializer_list>
#include <string_view>

#include "merganser/io/yaml_value.h"
#include "merganser/train/train_options.h"

namespace merganser {

// Reads the training keys into `options`; `others` are the other keys that the
// mapping may have.
void parse_training(
    const YamlValue& mapping,
    std::initializer_list<std::string_view> others,
    TrainOptions& options);

} // namespace merganser
