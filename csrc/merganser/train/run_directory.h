#pragma once

#include <filesystem>
#include <optional>

#include "merganser/base/api.h"
#include "merganser/fisher/fisher.h"
#include "merganser/io/file_lock.h"
#include "merganser/model/encoder.h"

namespace merganser {

// Where a run keeps what it needs to go on after an interruption, and from
// where its results appear under their final name, all at once:
//   OUT.partial/state.safetensors   the last checkpoint
//   OUT.partial/best.safetensors    parameters of the best epoch
//   OUT.partial/metrics.jsonl
class MERGANSER_API RunDirectory {
 public:
  // Throws InputError when `out` exists and is not an empty folder.
  explicit RunDirectory(const std::filesystem::path& out);

  // Makes OUT.partial where it is not there. Throws Error while another process
  // trains there.
  void open();
  const std::filesystem::path& partial() const {
    return partial_;
  }
  std::filesystem::path state() const;
  std::filesystem::path best() const;
  std::filesystem::path metrics() const;

  // Writes model, metrics and Fisher (model_hash is filled in) to OUT and
  // removes OUT.partial; `source` is the model folder that config and tokenizer
  // come from. Returns the file of the Fisher.
  std::optional<std::filesystem::path> publish(
      const Encoder& model,
      const std::filesystem::path& source,
      std::optional<FisherResult> fisher) const;

 private:
  std::filesystem::path out_;
  std::filesystem::path partial_;
  std::optional<FileLock> lock_;
};

} // namespace merganser
