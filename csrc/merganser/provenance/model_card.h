#pragma once

#include <filesystem>

#include "merganser/plan/plan.h"
#include "merganser/provenance/provenance.h"

namespace merganser {

// Writes README.md of a merged model, with the metadata that Hugging Face
// shows.
void write_model_card(
    const MergePlan& plan,
    const Provenance& provenance,
    const std::filesystem::path& folder);

} // namespace merganser
