#pragma once

#include <filesystem>
#include <optional>

#include "merganser/base/api.h"
#include "merganser/fisher/fisher.h"
#include "merganser/io/file_lock.h"
#include "merganser/model/encoder.h"

namespace merganser {

// Directory of a run's state, from which an interrupted run resumes. The
// results are published under their final name atomically.
//   OUT.partial/state.safetensors   the last checkpoint
//   OUT.partial/best.safetensors    parameters of the best epoch
//   OUT.partial/metrics.jsonl
class MERGANSER_API RunDirectory {
 public:
  // Throws InputError when `out` exists and is not an empty directory, unless
  // it may be replaced.
  explicit RunDirectory(
      const std::filesystem::path& out,
      bool may_replace = false);

  // Creates OUT.partial if absent. Throws Error while another process trains
  // there.
  void open();
  const std::filesystem::path& partial() const {
    return partial_;
  }
  std::filesystem::path state() const;
  std::filesystem::path best() const;
  std::filesystem::path metrics() const;

  // Writes model, metrics and Fisher (with its model_hash) to OUT and removes
  // OUT.partial; `source` is the model directory with config and tokenizer.
  // Returns the path of the Fisher file.
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
