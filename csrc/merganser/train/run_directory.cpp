#include "merganser/train/run_directory.h"

#include <fmt/format.h>

#include "merganser/base/error.h"
#include "merganser/io/atomic_file.h"
#include "merganser/io/checkpoint.h"

namespace merganser {
namespace {

namespace fs = std::filesystem;

// Makes "out/" and "out" the same path.
fs::path without_trailing_slash(const fs::path& path) {
  const fs::path normal = fs::absolute(path).lexically_normal();
  return normal.has_filename() ? normal : normal.parent_path();
}

} // namespace

RunDirectory::RunDirectory(const fs::path& out, bool may_replace)
    : out_(without_trailing_slash(out)), partial_(out_) {
  partial_ += ".partial";
  if (!may_replace && fs::exists(out_) &&
      !(fs::is_directory(out_) && fs::is_empty(out_))) {
    throw InputError(fmt::format(
        "{}: exists and is not an empty directory; choose another output path",
        out.string()));
  }
}

void RunDirectory::open() {
  std::error_code failed;
  fs::create_directories(partial_, failed);
  if (failed) {
    throw Error(fmt::format(
        "cannot create directory {}: {}", partial_.string(), failed.message()));
  }
  lock_.emplace(partial_ / "lock");
}

fs::path RunDirectory::state() const {
  return partial_ / "state.safetensors";
}

fs::path RunDirectory::best() const {
  return partial_ / "best.safetensors";
}

fs::path RunDirectory::metrics() const {
  return partial_ / "metrics.jsonl";
}

std::optional<fs::path> RunDirectory::publish(
    const Encoder& model,
    const fs::path& source,
    std::optional<FisherResult> fisher) const {
  AtomicDirectory directory(out_, /*replace=*/false);
  save_encoder(model, source, directory.path());
  write_file(directory.path() / "metrics.jsonl", read_file(metrics()));
  if (fisher) {
    fisher->model_hash = Checkpoint(directory.path()).content_hash();
    fisher->save(directory.path() / "fisher.safetensors");
  }
  directory.commit();
  std::error_code ignored; // the result is complete
  fs::remove_all(partial_, ignored);
  if (!fisher) {
    return std::nullopt;
  }
  return out_ / "fisher.safetensors";
}

} // namespace merganser
