#include "merge/preflight.h"

#include <fmt/format.h>

#include "io/error.h"
#include "merge/fisher_file.h"
#include "merge/table.h"

namespace merganser {

namespace fs = std::filesystem;

void check_fishers(
    const MergePlan& plan,
    const std::function<std::string(const Checkpoint&)>& hash_of) {
  const auto check = [&](const Checkpoint& fisher, const Checkpoint& model) {
    const auto metadata =
        FisherMetadata::parse(fisher.metadata(), fisher.files().front());
    if (metadata && !metadata->base_model_hash.empty() &&
        !metadata->base_model_hash.starts_with(hash_of(model))) {
      throw InputError(fmt::format(
          "{} is the Fisher of other weights than {} (its base_model_hash "
          "differs); estimate it on this model",
          fisher.path().string(),
          model.path().string()));
    }
  };
  if (plan.base_fisher) {
    check(*plan.base_fisher, *plan.base);
  }
  for (size_t t = 0; t < plan.fishers.size(); ++t) {
    check(plan.fishers[t], plan.models[t]);
  }
}

void check_space(const fs::path& out, uint64_t needed) {
  fs::path folder = fs::absolute(out);
  while (!fs::exists(folder)) {
    folder = folder.parent_path();
  }
  const uint64_t free = fs::space(folder).available;
  if (free < needed) {
    throw Error(fmt::format(
        "{} needs {}, but its disk has {} free",
        out.string(),
        format_bytes(needed),
        format_bytes(free)));
  }
}

} // namespace merganser
