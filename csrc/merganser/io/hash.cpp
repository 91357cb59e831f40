#include "merganser/io/hash.h"

#include <algorithm>
#include <new>
#include <vector>

#include <fmt/format.h>
#include <xxhash.h>
#ifdef MERGANSER_XXHASH_DISPATCHES
#include <xxh_x86dispatch.h> // same names, widest vectors
#endif

#include "merganser/io/input_file.h"

namespace merganser {

struct Hasher::State {
  XXH3_state_t* xxh = XXH3_createState();

  ~State() {
    XXH3_freeState(xxh);
  }
};

Hasher::Hasher() : state_(std::make_unique<State>()) {
  if (state_->xxh == nullptr) {
    throw std::bad_alloc();
  }
  XXH3_128bits_reset(state_->xxh);
}

Hasher::~Hasher() = default;

void Hasher::update(const void* data, size_t size) {
  XXH3_128bits_update(state_->xxh, data, size);
}

void Hasher::update(std::string_view text) {
  const uint64_t size = text.size();
  update(&size, sizeof(size));
  update(text.data(), text.size());
}

std::string Hasher::digest() const {
  const XXH128_hash_t hash = XXH3_128bits_digest(state_->xxh);
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

std::string hash_file(const std::filesystem::path& path) {
  const InputFile file(path);
  Hasher hasher;
  std::vector<std::byte> buffer(std::min<uint64_t>(file.size(), 1 << 20));
  for (uint64_t offset = 0; offset < file.size(); offset += buffer.size()) {
    buffer.resize(std::min<uint64_t>(buffer.size(), file.size() - offset));
    file.read_at(offset, buffer);
    hasher.update(buffer.data(), buffer.size());
  }
  return hasher.digest();
}

} // namespace merganser
