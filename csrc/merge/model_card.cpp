#include "merge/model_card.h"

#include <fmt/format.h>

#include "io/atomic_file.h"

namespace merganser {

void write_model_card(
    const MergePlan& plan,
    const Provenance& provenance,
    const std::filesystem::path& folder) {
  const MethodInfo& method = *plan.recipe.method;
  std::string text = fmt::format(
      "---\n"
      "library_name: transformers\n"
      "tags:\n"
      "- merge\n"
      "- merganser\n"
      "---\n"
      "# Merged model{}{}\n\n"
      "A merge of models by Merganser {}, method `{}`:\n\n"
      "    {}\n\n"
      "| input | content hash |\n"
      "|---|---|\n",
      provenance.output.empty() ? "" : ": ",
      provenance.output,
      provenance.version,
      method.name,
      method.text);
  for (const Provenance::Input& input : provenance.inputs) {
    text += fmt::format(
        "| {} | `{}` |\n", input.path.filename().string(), input.content_hash);
  }
  text += fmt::format(
      "\nContent hash of this model: `{}`. `merganser verify` checks these.\n\n"
      "The recipe:\n\n```yaml\n{}{}```\n",
      provenance.content_hash,
      provenance.recipe,
      provenance.recipe.ends_with('\n') ? "" : "\n");
  write_file(folder / "README.md", text);
}

} // namespace merganser
