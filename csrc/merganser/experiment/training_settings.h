#pragma once

#include <initializer_list>
#include <string_view>

#include "merganser/io/yaml_value.h"
#include "merganser/train/train_options.h"

namespace merganser {

// The keys that say how a model is trained, read into `options`; `others` are
// the keys that the mapping may have besides.
void parse_training(
    const YamlValue& mapping,
    std::initializer_list<std::string_view> others,
    TrainOptions& options);

} // namespace merganser
