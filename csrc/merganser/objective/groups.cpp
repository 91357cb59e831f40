#include "merganser/objective/groups.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "merganser/base/error.h"
#include "merganser/recipe/layer_name.h"
#include "merganser/train/arena.h"

namespace merganser {
namespace {

bool contains(const std::string& name, std::string_view part) {
  return name.find(part) != std::string::npos;
}

// Names of tensors as in BERT and RoBERTa.
std::string block_of(const std::string& tensor) {
  if (const std::optional<int> layer = layer_of(tensor)) {
    return fmt::format(
        "{}{} {}",
        *stack_of(tensor),
        *layer,
        contains(tensor, ".attention.") ? "attention" : "mlp");
  }
  if (contains(tensor, "embeddings.")) {
    return "embeddings";
  }
  if (tensor.starts_with("classifier.") || contains(tensor, "pooler.")) {
    return "head";
  }
  return "rest";
}

std::string group_of(const std::string& tensor, Grouping grouping) {
  switch (grouping) {
    case Grouping::kGlobal:
      return "all";
    case Grouping::kBlock:
      return block_of(tensor);
    default:
      return tensor;
  }
}

} // namespace

Grouping parse_grouping(const std::string& name) {
  for (const Grouping grouping :
       {Grouping::kGlobal, Grouping::kBlock, Grouping::kTensor}) {
    if (name == grouping_name(grouping)) {
      return grouping;
    }
  }
  throw InputError(fmt::format(
      "unknown groups '{}'; expected global, block or tensor", name));
}

std::string grouping_name(Grouping grouping) {
  switch (grouping) {
    case Grouping::kGlobal:
      return "global";
    case Grouping::kBlock:
      return "block";
    default:
      return "tensor";
  }
}

ParameterGroups make_groups(const Arena& arena, Grouping grouping) {
  ParameterGroups groups;
  for (const Arena::Entry& entry : arena.entries()) {
    const std::string name = group_of(entry.name, grouping);
    const auto found = std::ranges::find(groups.names, name);
    groups.of_entry.push_back(
        static_cast<size_t>(found - groups.names.begin()));
    if (found == groups.names.end()) {
      groups.names.push_back(name);
    }
  }
  return groups;
}

std::vector<SubspaceFisher::Group> tensors_by_group(
    const Arena& arena,
    const ParameterGroups& groups) {
  std::vector<SubspaceFisher::Group> found;
  for (const std::string& name : groups.names) {
    found.push_back({name, {}});
  }
  for (size_t i = 0; i < groups.of_entry.size(); ++i) {
    found[groups.of_entry[i]].tensors.push_back(arena.entries()[i].name);
  }
  return found;
}

} // namespace merganser
