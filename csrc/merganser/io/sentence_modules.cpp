#include "merganser/io/sentence_modules.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "merganser/base/error.h"
#include "merganser/base/json_text.h"
#include "merganser/base/quote.h"
#include "merganser/io/atomic_file.h"

namespace fs = std::filesystem;

namespace merganser {

std::vector<SentenceModule> read_sentence_modules(const fs::path& model) {
  const fs::path file = model / "modules.json";
  std::vector<SentenceModule> modules;
  if (!fs::exists(file)) {
    return modules;
  }
  const auto json = parse_json_or_discard(read_file(file));
  const auto is_module = [](const auto& module) {
    return module.is_object() && module.contains("path") &&
        module["path"].is_string() && module.contains("type") &&
        module["type"].is_string();
  };
  if (!json.is_array() || !std::ranges::all_of(json, is_module)) {
    throw InputError(fmt::format(
        "{}: expected a list of modules with type and path, as "
        "sentence-transformers writes it",
        file.string()));
  }
  for (const auto& module : json) {
    const auto& type = module["type"].template get_ref<const std::string&>();
    fs::path folder =
        fs::path(module["path"].template get<std::string>()).lexically_normal();
    if (folder.is_absolute() || folder.string().starts_with("..")) {
      throw InputError(fmt::format(
          "{}: names {}, which is outside the model's directory",
          file.string(),
          quote(folder.string())));
    }
    if (!folder.has_filename() && folder.has_parent_path()) {
      folder = folder.parent_path(); // of "1_Pooling/"
    }
    modules.push_back(
        {type.substr(type.rfind('.') + 1), folder == "." ? "" : folder});
  }
  return modules;
}

std::vector<fs::path> modules_with_weights(const fs::path& model) {
  std::vector<fs::path> folders;
  for (const SentenceModule& module : read_sentence_modules(model)) {
    if (!module.folder.empty() &&
        fs::is_regular_file(model / module.folder / "model.safetensors")) {
      folders.push_back(module.folder);
    }
  }
  return folders;
}

} // namespace merganser
