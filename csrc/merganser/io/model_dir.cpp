#include "merganser/io/model_dir.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "merganser/base/error.h"
#include "merganser/base/quote.h"
#include "merganser/io/atomic_file.h"
#include "merganser/io/sentence_modules.h"

namespace fs = std::filesystem;

namespace merganser {

namespace {

constexpr std::string_view kWeights[] = {
    ".safetensors",
    ".index.json",
    ".bin",
    ".pt",
    ".pth",
    ".ckpt",
    ".h5",
    ".msgpack",
    ".onnx",
    ".ot",
    ".pb",
    ".onnx_data",
    ".gguf",
    ".ggml",
    ".tflite",
    ".npz",
    ".pkl",
    ".mlmodel"};

// Files about one training, its data or one model, which a copy must not have;
// adapter_config.json would make transformers look for the adapter.
constexpr std::string_view kLeftOut[] = {
    "config.json", // written from config_text()
    "adapter_config.json",
    "merganser.json",
    "metrics.jsonl",
    "trainer_state.json",
    "all_results.json",
    "train_results.json",
    "eval_results.json",
    "test_results.json",
    "predict_results.json",
    "zero_to_fp32.py",
    "latest"};

constexpr std::string_view kLeftOutEndings[] =
    {".log", ".png", ".jpg", ".jpeg", ".gif", ".svg", ".pdf"};

bool has_ending(std::string_view name, auto& endings) {
  return std::ranges::any_of(
      endings, [&](std::string_view ending) { return name.ends_with(ending); });
}

bool is_hidden(const fs::path& file) {
  return file.filename().string().starts_with('.');
}

bool is_left_out(const fs::path& file) {
  const std::string name = file.filename().string();
  return is_hidden(file) || is_weights_file(file) ||
      has_ending(name, kLeftOutEndings) || name.starts_with("README") ||
      name.starts_with("events.out.tfevents") ||
      std::ranges::find(kLeftOut, name) != std::end(kLeftOut);
}

bool is_file(const fs::directory_entry& entry) {
  if (entry.is_symlink() && !entry.exists()) {
    throw InputError(fmt::format(
        "{}: symbolic link to a file that does not exist",
        entry.path().string()));
  }
  return entry.is_regular_file();
}

} // namespace

bool is_weights_file(const fs::path& file) {
  return has_ending(file.filename().string(), kWeights);
}

ModelDir::ModelDir(fs::path path) : path_(std::move(path)) {
  if (!fs::is_directory(path_)) {
    throw InputError(fmt::format(
        "{}: is not a directory; expected a Hugging Face model directory with "
        "config.json and weights, or owner/name[@revision] on the Hub",
        path_.string()));
  }
  const fs::path config = path_ / "config.json";
  if (!fs::exists(config)) {
    const std::vector<SentenceModule> modules = read_sentence_modules(path_);
    if (modules.empty()) {
      throw InputError(fmt::format(
          "{}: has no config.json; is it a Hugging Face model directory?",
          path_.string()));
    }
    throw InputError(fmt::format(
        "{}: has no config.json: the first module is {} in {}; expected a "
        "transformer in the model's own directory, where SentenceTransformer "
        "of a current sentence-transformers saves it",
        path_.string(),
        modules.front().type,
        quote(modules.front().folder.string())));
  }
  config_text_ = read_file(config);
}

std::vector<fs::path> ModelDir::companions() const {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(path_)) {
    if (!is_left_out(entry.path()) && is_file(entry)) {
      files.push_back(entry.path().filename());
    }
  }
  std::vector<fs::path> folders = {"additional_chat_templates"};
  for (const SentenceModule& module : read_sentence_modules(path_)) {
    if (!module.folder.empty()) {
      folders.push_back(module.folder);
    }
  }
  const std::vector<fs::path> weights = modules_with_weights(path_);
  for (const fs::path& folder : folders) {
    if (!fs::is_directory(path_ / folder)) {
      continue;
    }
    for (const auto& entry : fs::recursive_directory_iterator(path_ / folder)) {
      const fs::path file = entry.path().lexically_relative(path_);
      const bool is_merged = file.filename() == "model.safetensors" &&
          std::ranges::find(weights, file.parent_path()) != weights.end();
      if (!is_hidden(file) && !is_merged && is_file(entry)) {
        files.push_back(file);
      }
    }
  }
  std::ranges::sort(files);
  const auto repeated = std::ranges::unique(files);
  files.erase(repeated.begin(), repeated.end());
  return files;
}

void ModelDir::copy_without_weights(const fs::path& to) const {
  write_file(to / "config.json", config_text_);
  for (const fs::path& file : companions()) {
    fs::create_directories((to / file).parent_path());
    write_file(to / file, read_file(path_ / file));
  }
}

} // namespace merganser
