#include "merganser/engine/merge_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "merganser/base/error.h"
#include "merganser/base/parallel.h"
#include "merganser/base/version.h"
#include "merganser/merge/fisher_means.h"
#include "merganser/merge/measure_tensor.h"
#include "merganser/merge/value_errors.h"

namespace merganser {
namespace {

Metadata file_metadata(const MergePlan& plan) {
  return {
      {"merge_method", std::string(plan.recipe.method->name)},
      {"merge_recipe", plan.recipe.text},
      {"merganser_version", version()}};
}

constexpr uint64_t kMegabyte = 1'000'000; // the unit of progress

uint64_t bytes_moved(const TensorPlan& tensor, size_t outputs) {
  return tensor.bytes_read + outputs * tensor.output.bytes();
}

// Sets `largest` to `value` if that is greater, and finite, as JSON requires.
void raise_to(std::atomic<double>& largest, double value) {
  value = std::isfinite(value) ? value : std::numeric_limits<double>::max();
  double known = largest;
  while (known < value && !largest.compare_exchange_weak(known, value)) {
  }
}

} // namespace

MergeRun::MergeRun(const MergePlan& plan, int threads, bool allow_nonfinite)
    : plan_(plan),
      threads_(threads),
      allow_nonfinite_(allow_nonfinite),
      workers_(threads),
      tensors_(plan.tensors.size()),
      output_digests_(
          plan.outputs.size(),
          std::vector<Digest>(plan.tensors.size())),
      hashes_(plan) {}

void MergeRun::write_weights(
    Staging& staging,
    uint64_t shard_bytes,
    const ProgressCallback& progress) {
  fisher_means_ = fisher_means(plan_, threads_);
  open_writers(staging, shard_bytes);
  const std::vector<size_t> rest = restore_finished(staging);
  if (plan_.recipe.method->is_spectral()) {
    merge_whole(rest, staging, progress);
  } else if (plan_.recipe.method->needs_statistics()) {
    // Tensor by tensor: the pages that were read for its statistics are then
    // still in the page cache.
    for (const size_t tensor : rest) {
      measure(tensor, threads_);
      merge_tensors({tensor}, staging, progress);
    }
  } else {
    merge_tensors(rest, staging, progress);
  }
  for (const auto& writer : writers_) {
    writer->finish();
  }
}

// Gives each thread whole tensors, for methods that measure one at length on
// one thread.
void MergeRun::merge_whole(
    const std::vector<size_t>& tensors,
    Staging& staging,
    const ProgressCallback& progress) {
  const uint64_t total = (plan_.bytes_read + plan_.bytes_written) / kMegabyte;
  parallel_for(threads_, std::ssize(tensors), [&](int64_t i, int worker) {
    measure(tensors[i], 1);
    const StripList strips(plan_.tensors, {tensors[i]});
    for (int64_t strip = 0; strip < strips.size(); ++strip) {
      merge_strip(strips[strip], workers_[worker], staging);
    }
    if (worker == 0 && progress) {
      progress(bytes_done_ / kMegabyte, total, "");
    }
  });
  if (progress && !tensors.empty()) {
    progress(total, total, "");
  }
}

void MergeRun::measure(size_t tensor, int threads) {
  const TensorPlan& plan = plan_.tensors[tensor];
  const bool needed = plan_.recipe.method->matrix == MatrixRule::kNone ||
      !plan.grams.empty() || plan.spectral;
  if (plan.action != TensorAction::kMerge || !needed) {
    return;
  }
  auto& found = tensors_[tensor].statistics;
  for (size_t output = 0; output < plan_.outputs.size(); ++output) {
    size_t same = 0;
    while (same < output &&
           !same_statistics(
               *plan_.recipe.method,
               plan.parameters[same],
               plan.parameters[output])) {
      ++same;
    }
    found.push_back(
        same < output ? found[same]
                      : std::make_shared<const TensorStatistics>(
                            measure_tensor(plan, output, threads)));
  }
}

void MergeRun::open_writers(const Staging& staging, uint64_t shard_bytes) {
  std::vector<TensorInfo> outputs;
  for (const TensorPlan& tensor : plan_.tensors) {
    outputs.push_back(tensor.output);
  }
  for (const std::string& name : plan_.outputs) {
    const auto folder = staging.folder() / name;
    std::filesystem::create_directories(folder);
    writers_.push_back(std::make_unique<CheckpointWriter>(
        folder,
        outputs,
        file_metadata(plan_),
        shard_bytes,
        Appearance::kAtOnce,
        plan_.inputs[plan_.reference_weights]->modules()));
  }
}

std::vector<std::string> MergeRun::input_hashes() {
  return hashes_.finish(threads_);
}

// Takes over what an earlier run finished; returns the other tensors.
std::vector<size_t> MergeRun::restore_finished(const Staging& staging) {
  std::vector<bool> finished(plan_.tensors.size());
  for (const std::string& line : staging.finished()) {
    const FinishedTensor done = FinishedTensor::parse(line);
    if (done.tensor >= finished.size() || finished[done.tensor] ||
        done.digests.size() !=
            plan_.tensors[done.tensor].sources.size() + plan_.outputs.size()) {
      throw Error(fmt::format(
          "the journal in {} is damaged; rerun without --resume to start again",
          staging.folder().parent_path().string()));
    }
    const TensorPlan& tensor = plan_.tensors[done.tensor];
    finished[done.tensor] = true;
    for (const auto& writer : writers_) {
      writer->skip(tensor.output.name);
    }
    record(done);
    bytes_done_ += bytes_moved(tensor, writers_.size());
    ++resumed_;
  }
  std::vector<size_t> rest;
  for (size_t i = 0; i < finished.size(); ++i) {
    if (!finished[i]) {
      rest.push_back(i);
    }
  }
  return rest;
}

void MergeRun::record(const FinishedTensor& finished) {
  const size_t sources = plan_.tensors[finished.tensor].sources.size();
  const std::span<const Digest> digests = finished.digests;
  hashes_.add(finished.tensor, digests.first(sources));
  for (size_t output = 0; output < output_digests_.size(); ++output) {
    output_digests_[output][finished.tensor] = digests[sources + output];
  }
  clamped_ += finished.clamped;
  raise_to(largest_weight_, finished.largest_weight);
  nonfinite_ += finished.nonfinite;
}

void MergeRun::merge_tensors(
    const std::vector<size_t>& tensors,
    Staging& staging,
    const ProgressCallback& progress) {
  const uint64_t total = (plan_.bytes_read + plan_.bytes_written) / kMegabyte;
  const StripList strips(plan_.tensors, tensors);
  parallel_for(threads_, strips.size(), [&](int64_t i, int worker) {
    merge_strip(strips[i], workers_[worker], staging);
    if (worker == 0 && progress) {
      progress(bytes_done_ / kMegabyte, total, "");
    }
  });
  if (progress && !tensors.empty() &&
      tensors.back() + 1 == plan_.tensors.size()) {
    progress(total, total, "");
  }
}

void MergeRun::merge_strip(
    const Strip& strip,
    Worker& worker,
    Staging& staging) {
  const TensorPlan& tensor = plan_.tensors[strip.tensor];
  TensorState& state = tensors_[strip.tensor];
  const size_t digests = tensor.sources.size() + plan_.outputs.size();
  std::call_once(state.begun, [&] {
    state.chunks = chunk_count(tensor.output.numel());
    state.blocks.resize(digests * static_cast<size_t>(state.chunks));
  });
  worker.digests.resize(digests);
  worker.strips.resize(plan_.outputs.size());
  worker.results.resize(plan_.outputs.size());
  const Chunk& elements = strip.elements;
  const uint64_t bits = dtype_bits(tensor.output.dtype);
  const uint64_t size = elements.n * bits / 8;
  for (auto& bytes : worker.strips) {
    bytes.resize(std::max(bytes.size(), size));
  }
  for (int64_t i = 0; i < chunk_count(elements.n); ++i) {
    Chunk chunk = chunk_at(elements.n, i);
    for (size_t output = 0; output < worker.strips.size(); ++output) {
      worker.results[output] =
          std::span(worker.strips[output])
              .subspan(chunk.begin * bits / 8, chunk.n * bits / 8);
    }
    chunk.begin += elements.begin;
    chunk.index += elements.begin / kChunkElements;
    process_chunk(strip.tensor, chunk, worker);
  }
  for (size_t output = 0; output < worker.strips.size(); ++output) {
    writers_[output]->write(
        tensor.output.name,
        std::span(worker.strips[output]).first(size),
        elements.begin * bits / 8);
  }
  bytes_done_ += bytes_moved(tensor, writers_.size()) * elements.n /
      std::max<int64_t>(tensor.output.numel(), 1);
  if (++state.done == strip.count) {
    finish(strip.tensor, staging);
  }
}

void MergeRun::process_chunk(
    size_t tensor,
    const Chunk& chunk,
    Worker& worker) {
  if (plan_.tensors[tensor].action == TensorAction::kMerge) {
    merge_chunk(tensor, chunk, worker);
  } else {
    copy_chunk(tensor, chunk, worker);
  }
  TensorState& state = tensors_[tensor];
  for (size_t d = 0; d < worker.digests.size(); ++d) {
    state.blocks[d * state.chunks + chunk.index] = worker.digests[d];
  }
}

void MergeRun::merge_chunk(size_t index, const Chunk& chunk, Worker& worker) {
  const TensorPlan& tensor = plan_.tensors[index];
  TensorState& state = tensors_[index];
  const auto merge_with = [&](auto& merger) {
    if (!merger) {
      merger.emplace(fisher_means_, allow_nonfinite_);
    }
    merger->read(tensor, chunk, worker.digests);
    for (size_t output = 0; output < plan_.outputs.size(); ++output) {
      const MergedChunk merged = merger->merge(
          tensor,
          chunk,
          output,
          state.statistics.empty() ? nullptr : state.statistics[output].get(),
          worker.results[output]);
      worker.digests[tensor.sources.size() + output] =
          hash_bytes(worker.results[output]);
      state.clamped += merged.clamped;
      raise_to(state.largest_weight, merged.largest_weight);
      state.nonfinite += merged.nonfinite;
    }
  };
  if (tensor.float64) {
    merge_with(worker.float64);
  } else {
    merge_with(worker.float32);
  }
}

void MergeRun::copy_chunk(size_t tensor, const Chunk& chunk, Worker& worker) {
  const TensorSource& source = plan_.tensors[tensor].sources[0];
  const uint64_t bits = dtype_bits(source.tensor.info().dtype);
  const std::span<std::byte> first = worker.results[0];
  source.tensor.read(first, chunk.begin * bits / 8);
  std::ranges::fill(worker.digests, hash_bytes(first)); // the same bytes
  const int64_t nonfinite = check_finite(
      source.tensor,
      first,
      chunk.begin,
      allow_nonfinite_,
      "only finite values can be copied without --allow-nonfinite");
  tensors_[tensor].nonfinite += plan_.outputs.size() * nonfinite;
  for (const std::span<std::byte> other :
       std::span(worker.results).subspan(1)) {
    std::ranges::copy(first, other.begin());
  }
}

// Records a tensor whose strips are all written.
void MergeRun::finish(size_t tensor, Staging& staging) {
  TensorState& state = tensors_[tensor];
  FinishedTensor finished = {
      .tensor = tensor,
      .clamped = state.clamped,
      .largest_weight = state.largest_weight,
      .nonfinite = state.nonfinite,
      .digests = {}};
  const std::span<const Digest> blocks = state.blocks;
  const int64_t used = hash_blocks(plan_.tensors[tensor].output);
  for (size_t begin = 0; begin < blocks.size(); begin += state.chunks) {
    finished.digests.push_back(combine_digests(blocks.subspan(begin, used)));
  }
  state.blocks = {};
  state.statistics = {}; // may be as large as the tensor
  staging.add(finished.to_line());
  record(finished);
}

} // namespace merganser
