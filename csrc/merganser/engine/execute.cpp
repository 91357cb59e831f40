#include "merganser/engine/execute.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <map>

#include "merganser/base/error.h"
#include "merganser/base/version.h"
#include "merganser/engine/merge_run.h"
#include "merganser/io/durable.h"
#include "merganser/io/hash.h"
#include "merganser/merge/value_errors.h"
#include "merganser/plan/check_inputs.h"
#include "merganser/plan/output_config.h"
#include "merganser/provenance/model_card.h"
#include "merganser/provenance/provenance.h"

namespace merganser {
namespace {

namespace fs = std::filesystem;

// Size of the reference's largest shard; unlimited if it is one file.
uint64_t shard_bytes(const Checkpoint& reference) {
  if (reference.files().size() == 1 + reference.modules().size()) {
    return std::numeric_limits<uint64_t>::max();
  }
  std::map<fs::path, uint64_t> sizes;
  for (const TensorInfo& tensor : reference.tensors()) {
    sizes[reference.file_of(tensor.name)] += tensor.bytes();
  }
  uint64_t largest = 0;
  for (const auto& [file, size] : sizes) {
    largest = std::max(largest, size);
  }
  return largest;
}

// Hash that is equal if two merges write the same bytes: of the recipe, the
// options that matter, and the input files with their sizes and times.
std::string merge_identity(const MergePlan& plan, const MergeOptions& options) {
  Hasher hasher;
  hasher.update(version());
  hasher.update(plan.recipe.text);
  const uint64_t numbers[] = {
      options.shard_bytes.value_or(0), options.allow_nonfinite};
  hasher.update(numbers, sizeof(numbers));
  for (const auto& input : plan.inputs) {
    for (const fs::path& file : input->files()) {
      hasher.update(fs::canonical(file).string());
      const auto time = fs::last_write_time(file).time_since_epoch().count();
      const uint64_t state[] = {
          fs::file_size(file), static_cast<uint64_t>(time)};
      hasher.update(state, sizeof(state));
    }
    hasher.update(settings_hash(*input));
  }
  return hasher.digest();
}

void write_head(
    const TaskHead& head,
    bool allow_nonfinite,
    const fs::path& folder) {
  const fs::path file = folder / head.file;
  fs::create_directories(file.parent_path());
  SafetensorsWriter writer(file, head.tensors, {{"format", "pt"}});
  for (size_t i = 0; i < head.tensors.size(); ++i) {
    std::vector<std::byte> data(head.tensors[i].bytes());
    head.sources[i].read(data);
    check_finite(
        head.sources[i],
        data,
        0,
        allow_nonfinite,
        "only finite values can be copied without --allow-nonfinite");
    writer.write(head.tensors[i].name, data);
  }
  writer.finish();
}

MergeReport planned_report(const MergePlan& plan) {
  MergeReport report;
  report.method = plan.recipe.method->name;
  report.notes = plan.notes;
  report.has_denominators =
      plan.recipe.method->formula == MergeFormula::kRemoval;
  for (const TensorPlan& tensor : plan.tensors) {
    const bool merged = tensor.action == TensorAction::kMerge;
    ++(merged ? report.tensors_merged : report.tensors_copied);
    report.tensors_without_fisher += tensor.lacks_fishers();
    const int64_t elements = merged ? tensor.output.numel() : 0;
    report.elements += elements;
    const MergeFormula formula = tensor.method->formula;
    const int64_t values = formula == MergeFormula::kRemoval ? 1
        : formula == MergeFormula::kEwr ? 1 + tensor.num_models
                                        : 0;
    report.clampable += plan.outputs.size() * elements * values;
  }
  report.bytes_read = plan.bytes_read;
  report.bytes_written = plan.bytes_written;
  return report;
}

// Writes the files next to the weights, of which modules.json decides which
// weights belong to the model.
void write_companions(
    const MergePlan& plan,
    const fs::path& folder,
    bool allow_nonfinite) {
  for (const TaskHead& head : plan.heads) {
    write_head(head, allow_nonfinite, folder);
  }
  plan.reference->copy_without_weights(folder);
  if (plan.recipe.out_dtype) {
    set_config_dtype(folder / "config.json", *plan.recipe.out_dtype);
  }
  if (!plan.recipe.slices.empty()) {
    set_config_layers(folder / "config.json", plan.recipe.slices);
  }
}

// Content hash of the model in `folder`, from the digests of its data.
std::string output_hash(
    const MergePlan& plan,
    const std::vector<Digest>& digests,
    const fs::path& folder) {
  std::vector<TensorInfo> outputs;
  for (const TensorPlan& tensor : plan.tensors) {
    outputs.push_back(tensor.output);
  }
  return Checkpoint(folder).head_hash() + hash_tensors(outputs, digests);
}

Provenance provenance_of(
    const MergePlan& plan,
    const std::string& identity,
    const std::vector<std::string>& input_hashes) {
  Hasher recipe;
  recipe.update(plan.recipe.text.data(), plan.recipe.text.size());
  Provenance provenance = {
      .version = version(),
      .identity = identity,
      .method = std::string(plan.recipe.method->name),
      .output = {},
      .recipe = plan.recipe.text,
      .recipe_hash = recipe.digest(),
      .inputs = {},
      .content_hash = {},
      .clamped = 0,
      .largest_weight = 0,
      .nonfinite = 0};
  for (size_t i = 0; i < plan.inputs.size(); ++i) {
    const Checkpoint& input = *plan.inputs[i];
    provenance.inputs.push_back(
        {input.path(), {}, input_hashes[i], settings_hash(input)});
  }
  return provenance;
}

MergeReport merge_into(
    Staging& staging,
    const MergePlan& plan,
    const MergeOptions& options,
    const std::string& identity,
    int threads,
    const ProgressCallback& progress) {
  MergeRun run(plan, threads, options.allow_nonfinite);
  run.write_weights(
      staging,
      options.shard_bytes.value_or(
          shard_bytes(*plan.inputs[plan.reference_weights])),
      progress);
  const std::vector<std::string> hashes = run.input_hashes();
  Problems problems;
  check_hashes(
      plan, [&](size_t input) { return hashes[input]; }, problems);
  problems.throw_if_any(plan.recipe.source);
  Provenance provenance = provenance_of(plan, identity, hashes);
  provenance.clamped = run.clamped();
  provenance.largest_weight = run.largest_weight();
  provenance.nonfinite = run.nonfinite();
  for (size_t output = 0; output < plan.outputs.size(); ++output) {
    const fs::path folder = staging.folder() / plan.outputs[output];
    provenance.output = plan.outputs[output];
    for (Provenance::Input& input : provenance.inputs) {
      input.from_output =
          with_name(input.path)
              .lexically_relative(staging.out() / plan.outputs[output]);
    }
    write_companions(plan, folder, options.allow_nonfinite);
    provenance.content_hash =
        output_hash(plan, run.output_digests(output), folder);
    provenance.write(folder);
    write_model_card(plan, provenance, folder);
  }
  MergeReport report = planned_report(plan);
  report.clamped = run.clamped();
  report.largest_weight = run.largest_weight();
  report.nonfinite = run.nonfinite();
  report.tensors_resumed = run.resumed();
  report.threads = threads;
  return report;
}

bool has_weights(const fs::path& folder, const Provenance& provenance) {
  try {
    return provenance.content_hash.starts_with(Checkpoint(folder).head_hash());
  } catch (const InputError&) {
    return false;
  }
}

// Report of a run that was killed after its output had appeared.
std::optional<MergeReport> find_done(
    const MergePlan& plan,
    const fs::path& out,
    const std::string& identity) {
  const auto provenance = Provenance::read(out / plan.outputs.front());
  if (!provenance || provenance->identity != identity ||
      !has_weights(out / plan.outputs.front(), *provenance)) {
    return std::nullopt;
  }
  Staging::remove_leftovers(out);
  MergeReport report = planned_report(plan);
  report.clamped = provenance->clamped;
  report.largest_weight = provenance->largest_weight;
  report.nonfinite = provenance->nonfinite;
  report.tensors_resumed = report.tensors_merged + report.tensors_copied;
  return report;
}

// Path of the directory to create, resolved if `given` is a link.
fs::path output_folder(const fs::path& given) {
  if (given.empty()) {
    throw InputError("the path of the output directory is empty");
  }
  fs::path out = with_name(given);
  if (!fs::is_symlink(out)) {
    return out;
  }
  if (!fs::exists(out)) {
    throw InputError(fmt::format(
        "{}: symbolic link to a path that does not exist", out.string()));
  }
  return fs::canonical(out);
}

} // namespace

MergeReport execute_merge(
    const MergePlan& plan,
    const fs::path& given,
    const MergeOptions& options,
    const ProgressCallback& progress) {
  const auto start = std::chrono::steady_clock::now();
  const fs::path out = output_folder(given);
  const int threads =
      fit_threads(plan, options.threads, options.memory).threads;
  const std::string identity = merge_identity(plan, options);
  if (options.resume) {
    if (const auto done = find_done(plan, out, identity)) {
      return *done;
    }
  }
  if (!options.resume || !Staging::is_begun(out)) {
    check_space(out, plan.bytes_written);
  }
  Staging staging(out, identity, options.resume);
  MergeReport report;
  try {
    report = merge_into(staging, plan, options, identity, threads, progress);
    staging.commit();
  } catch (const Interrupted&) {
    staging.keep();
    throw;
  } catch (const Error&) {
    throw;
  } catch (...) { // from a callback, such as Ctrl-C in Python
    staging.keep();
    throw;
  }
  const std::chrono::duration<double> seconds =
      std::chrono::steady_clock::now() - start;
  report.seconds = seconds.count();
  return report;
}

} // namespace merganser
