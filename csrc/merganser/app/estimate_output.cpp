#include "merganser/app/estimate_output.h"

#include <fmt/format.h>
#include <unistd.h>

#include <system_error>

#include "merganser/base/error.h"

namespace merganser::app {

void check_output(
    const std::filesystem::path& out,
    std::string_view kind,
    const std::function<bool()>& is_ours) {
  if (out.extension() != ".safetensors") {
    throw InputError(
        fmt::format("--out must end in .safetensors, got {}", out.string()));
  }
  if (std::filesystem::exists(out) && !is_ours()) {
    throw InputError(fmt::format(
        "{}: exists and is not a {}; choose another output path",
        out.string(),
        kind));
  }
  const std::filesystem::path directory =
      std::filesystem::absolute(out).parent_path();
  std::error_code failed;
  std::filesystem::create_directories(directory, failed);
  if (failed) {
    throw InputError(fmt::format(
        "cannot create directory {}: {}",
        directory.string(),
        failed.message()));
  }
  if (access(directory.c_str(), W_OK) != 0) {
    throw InputError(fmt::format(
        "{}: no write permission; choose another output path",
        directory.string()));
  }
}

} // namespace merganser::app
