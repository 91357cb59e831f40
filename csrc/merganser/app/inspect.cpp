// merganser inspect FILE|DIR

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "merganser/app/commands.h"
#include "merganser/app/model_option.h"
#include "merganser/provenance/inspect.h"

namespace merganser::app {
namespace {

struct Options {
  std::string path;
  bool no_hash = false;
};

} // namespace

Work define_inspect(CLI::App& parser, const CommonOptions& common) {
  auto options = std::make_shared<Options>();
  add_model(
      parser, "PATH", options->path, "A .safetensors file or a model directory")
      ->required();
  parser.add_flag(
      "--no-hash", options->no_hash, "Read headers only, without hashes");
  return [options, &common] {
    const Inspection found = inspect(options->path, !options->no_hash);
    fmt::print("{}", common.json ? found.to_json() + "\n" : found.to_text());
  };
}

} // namespace merganser::app
