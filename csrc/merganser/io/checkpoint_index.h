#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace merganser {

// The content of a *.safetensors.index.json.
struct CheckpointIndex {
  std::map<std::string, std::string> shard_of; // tensor -> file name
  std::vector<std::string> shards; // each once, sorted
  uint64_t total_size = 0; // bytes of all tensors; only written
};

// Throws InputError for any other file and for a shard that is not a plain file
// name (an index must not lead outside its directory).
CheckpointIndex read_checkpoint_index(const std::filesystem::path& path);

std::string format_checkpoint_index(const CheckpointIndex& index);

// The weights of a directory: the one .safetensors or index file to open.
// Throws InputError for none or more than one candidate.
std::filesystem::path find_weights(const std::filesystem::path& folder);

bool is_checkpoint_index(const std::filesystem::path& path);

} // namespace merganser
