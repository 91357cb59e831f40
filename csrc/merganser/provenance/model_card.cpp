#include "merganser/provenance/model_card.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "merganser/base/json_text.h"
#include "merganser/io/atomic_file.h"
#include "merganser/io/hub_cache.h"

namespace merganser {
namespace {

namespace fs = std::filesystem;

bool is_local(const std::string& name, const fs::path& recipe_folder) {
  std::error_code ignored;
  return fs::exists(name, ignored) || fs::exists(recipe_folder / name, ignored);
}

// True for "owner/name" or a bare name. Bare names of old models contain a
// hyphen or a digit, unlike many directories; "checkpoint-..." is a directory
// of a trainer.
bool is_hub_name(std::string_view name) {
  const size_t slash = name.find('/');
  const std::string_view last =
      slash == name.npos ? name : name.substr(slash + 1);
  if (!is_hub_word(last) || last.starts_with("checkpoint-")) {
    return false;
  }
  return slash == name.npos ? last.find_first_of("-0123456789") != last.npos
                            : is_hub_word(name.substr(0, slash));
}

// Returns the name under which a model comes from the hub, or which its
// configuration gives for it or for the model that it was fine-tuned from.
std::optional<std::string> hub_name(
    const fs::path& model,
    const fs::path& recipe_folder) {
  if (const auto name = hub_name_of(model)) {
    return name;
  }
  const fs::path file = model / "config.json";
  if (!fs::is_regular_file(file)) {
    return std::nullopt; // a Fisher, an adapter
  }
  const auto config = parse_json_or_discard(read_file(file));
  const auto name = config.find("_name_or_path");
  if (name == config.end() || !name->is_string() ||
      !is_hub_name(name->get_ref<const std::string&>()) ||
      is_local(*name, recipe_folder)) {
    return std::nullopt;
  }
  return *name;
}

// Returns base_model of Hugging Face's card metadata; empty if no input is
// known to come from the hub.
std::string base_models(const MergePlan& plan) {
  const fs::path recipe_folder = fs::path(plan.recipe.source).parent_path();
  std::vector<std::string> names;
  for (const auto& input : plan.inputs) {
    const auto name = hub_name(input->path(), recipe_folder);
    if (name && std::ranges::find(names, *name) == names.end()) {
      names.push_back(*name);
    }
  }
  if (names.empty()) {
    return "";
  }
  std::string text = "base_model:\n";
  for (const std::string& name : names) {
    text += fmt::format("- \"{}\"\n", name);
  }
  return text + "base_model_relation: merge\n";
}

} // namespace

void write_model_card(
    const MergePlan& plan,
    const Provenance& provenance,
    const std::filesystem::path& folder) {
  const MethodInfo& method = *plan.recipe.method;
  std::string text = fmt::format(
      "---\n"
      "{}"
      "library_name: transformers\n"
      "tags:\n"
      "- merge\n"
      "- merganser\n"
      "---\n"
      "# Merged model{}{}\n\n"
      "Merged by Merganser {} with method `{}`:\n\n"
      "    {}\n\n"
      "| input | content hash |\n"
      "|---|---|\n",
      base_models(plan),
      provenance.output.empty() ? "" : ": ",
      provenance.output,
      provenance.version,
      method.name,
      method.text);
  for (const Provenance::Input& input : provenance.inputs) {
    text += fmt::format(
        "| {} | `{}` |\n", model_name(input.path), input.content_hash);
  }
  text += fmt::format(
      "\nContent hash of this model: `{}`. `merganser verify` checks these "
      "hashes.\n\n"
      "The recipe:\n\n```yaml\n{}{}```\n",
      provenance.content_hash,
      provenance.recipe,
      provenance.recipe.ends_with('\n') ? "" : "\n");
  write_file(folder / "README.md", text);
}

} // namespace merganser
