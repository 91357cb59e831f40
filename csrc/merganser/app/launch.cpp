#include "merganser/app/launch.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <vector>

#include "merganser/base/error.h"

namespace merganser::app {
namespace {

namespace fs = std::filesystem;
constexpr const char* kProgram = "merganser-torch";

// Paths of the program in an installation, relative to this executable: the
// build tree and the Python package, cmake --install, and a wheel that put this
// executable on the PATH.
std::vector<fs::path> candidates(const fs::path& bin) {
  const fs::path prefix = bin.parent_path();
  std::vector<fs::path> paths = {
      bin / kProgram, prefix / "libexec" / "merganser" / kProgram};
  std::error_code ignored;
  for (const auto& lib : fs::directory_iterator(prefix / "lib", ignored)) {
    if (lib.path().filename().string().starts_with("python3")) {
      for (const char* packages : {"site-packages", "dist-packages"}) {
        paths.push_back(lib.path() / packages / "merganser" / "bin" / kProgram);
      }
    }
  }
  return paths;
}

} // namespace

int start_torch(char** argv) {
  const fs::path bin = fs::read_symlink("/proc/self/exe").parent_path();
  for (const auto& path : candidates(bin)) {
    if (access(path.c_str(), X_OK) == 0) {
      execv(path.c_str(), argv);
      throw Error(fmt::format(
          "cannot start {}: {}", path.string(), std::strerror(errno)));
    }
  }
  throw Error(fmt::format(
      "'merganser {}' needs {}, which is not installed next to {}; install "
      "Merganser with torch (pip install .) or build the target {}",
      argv[1],
      kProgram,
      (bin / "merganser").string(),
      kProgram));
}

} // namespace merganser::app
