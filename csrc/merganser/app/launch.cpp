#include "merganser/app/launch.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include "merganser/base/error.h"

namespace merganser::app {
namespace {

namespace fs = std::filesystem;
constexpr const char* kProgram = "merganser-torch";
constexpr const char* kPython = MERGANSER_PYTHON_PROGRAM; // such as python3.12

// Runs the module named by the first argument, with the others; one sentence
// where the package or what it needs is missing.
constexpr const char* kRunModule = R"(
import runpy, sys
try:
    import merganser
except ImportError as error:
    sys.exit(f"merganser: {sys.executable} cannot import the package merganser: {error}")
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
)";

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

// The directory of this executable.
fs::path bin_directory() {
  return fs::read_symlink("/proc/self/exe").parent_path();
}

std::optional<fs::path> find_torch() {
  for (const auto& path : candidates(bin_directory())) {
    if (access(path.c_str(), X_OK) == 0) {
      return path;
    }
  }
  return std::nullopt;
}

// Makes Python find the package of the build tree whose bin/ this is.
void add_build_tree(const fs::path& bin) {
  const fs::path packages = bin.parent_path() / "python";
  if (!fs::exists(packages / "merganser" / "report.py")) {
    return;
  }
  std::string path = packages.string();
  if (const char* before = std::getenv("PYTHONPATH")) {
    path += fmt::format(":{}", before);
  }
  setenv("PYTHONPATH", path.c_str(), 1);
}

} // namespace

bool has_torch() {
  return find_torch().has_value();
}

int start_torch(char** argv) {
  if (const auto path = find_torch()) {
    execv(path->c_str(), argv);
    throw Error(fmt::format(
        "cannot start {}: {}", path->string(), std::strerror(errno)));
  }
  throw Error(fmt::format(
      "'merganser {}' needs {}, which is not installed next to {}; install "
      "Merganser with torch (pip install .) or build the target {}",
      argv[1],
      kProgram,
      (bin_directory() / "merganser").string(),
      kProgram));
}

int start_python(
    std::string package_module,
    const std::string& command,
    std::vector<std::string> arguments) {
  const fs::path bin = bin_directory();
  add_build_tree(bin);
  // Modules in the working directory are not Python's.
  setenv("PYTHONSAFEPATH", "1", 1);
  const fs::path neighbour = bin / kPython;
  const std::string python =
      access(neighbour.c_str(), X_OK) == 0 ? neighbour.string() : kPython;
  std::string name = python;
  std::string option = "-c";
  std::string code = kRunModule;
  std::vector<char*> argv = {
      name.data(), option.data(), code.data(), package_module.data()};
  for (std::string& argument : arguments) {
    argv.push_back(argument.data());
  }
  argv.push_back(nullptr);
  execvp(python.c_str(), argv.data());
  throw Error(fmt::format(
      "'merganser {}' needs {} with the package merganser: {}",
      command,
      python,
      std::strerror(errno)));
}

int start_python(std::string package_module, char** argv) {
  char** end = argv + 2;
  while (*end != nullptr) {
    ++end;
  }
  return start_python(std::move(package_module), argv[1], {argv + 2, end});
}

} // namespace merganser::app
