#pragma once

#include <nlohmann/json.hpp>

#include "merganser/train/trainer.h"

namespace merganser {

// An epoch's metrics as metrics.jsonl, checkpoints and reports hold them.
nlohmann::ordered_json epoch_to_json(const EpochMetrics& epoch);
EpochMetrics epoch_from_json(const nlohmann::ordered_json& json);

} // namespace merganser
