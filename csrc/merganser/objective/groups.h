#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/io/subspace_file.h"

namespace merganser {

class Arena;

// A partition of the parameters: one group, the blocks of an encoder
// (embeddings, attention and MLP of each layer, head), or single tensors.
enum class Grouping { kGlobal, kBlock, kTensor };

// Parses global, block or tensor. Throws InputError for any other name.
MERGANSER_API Grouping parse_grouping(const std::string& name);
MERGANSER_API std::string grouping_name(Grouping grouping);

struct ParameterGroups {
  std::vector<std::string> names; // in the order of the model's parameters
  std::vector<size_t> of_entry; // group of each of Arena::entries()
};
MERGANSER_API ParameterGroups
make_groups(const Arena& arena, Grouping grouping);

// The same as a list of names for each group, as files have it.
MERGANSER_API std::vector<SubspaceFisher::Group> tensors_by_group(
    const Arena& arena,
    const ParameterGroups& groups);

} // namespace merganser
