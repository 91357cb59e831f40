#include "merge/merge_run.h"

#include <fmt/format.h>

#include "io/error.h"
#include "io/parallel.h"
#include "io/version.h"

namespace merganser {
namespace {

Metadata file_metadata(const MergePlan& plan) {
  return {
      {"merge_method", std::string(method_info(plan.recipe.method).name)},
      {"merge_recipe", plan.recipe.text},
      {"merganser_version", version()}};
}

} // namespace

MergeRun::MergeRun(const MergePlan& plan, int threads, bool allow_nonfinite)
    : plan_(plan),
      threads_(threads),
      allow_nonfinite_(allow_nonfinite),
      workers_(threads),
      tensors_(plan.tensors.size()),
      output_digests_(plan.tensors.size()),
      hashes_(plan) {}

void MergeRun::write_weights(
    Staging& staging,
    uint64_t shard_bytes,
    const ProgressCallback& progress) {
  std::vector<TensorInfo> outputs;
  for (const TensorPlan& tensor : plan_.tensors) {
    outputs.push_back(tensor.output);
  }
  CheckpointWriter writer(
      staging.folder(),
      std::move(outputs),
      file_metadata(plan_),
      shard_bytes,
      Appearance::kAtOnce);
  constexpr uint64_t kMegabyte = 1'000'000;
  const uint64_t total = (plan_.bytes_read + plan_.bytes_written) / kMegabyte;
  const ChunkList chunks(plan_, take_up(staging, writer));
  parallel_for(threads_, chunks.size(), [&](int64_t i, int worker) {
    work(chunks[i], workers_[worker], writer, staging);
    if (worker == 0 && progress) {
      progress(bytes_done_ / kMegabyte, total, "");
    }
  });
  writer.finish();
  if (progress) {
    progress(total, total, "");
  }
}

std::vector<std::string> MergeRun::input_hashes() {
  return hashes_.finish(threads_);
}

// What an earlier run finished is taken over; returns the other tensors.
std::vector<size_t> MergeRun::take_up(
    Staging& staging,
    CheckpointWriter& writer) {
  std::vector<bool> finished(plan_.tensors.size());
  for (const std::string& line : staging.finished()) {
    const FinishedTensor done = FinishedTensor::parse(line);
    if (done.tensor >= finished.size() || finished[done.tensor] ||
        done.digests.size() != plan_.tensors[done.tensor].sources.size() + 1) {
      throw Error(fmt::format(
          "the journal in {} is damaged: begin anew, without --resume",
          staging.folder().parent_path().string()));
    }
    const TensorPlan& tensor = plan_.tensors[done.tensor];
    finished[done.tensor] = true;
    writer.skip(tensor.output.name);
    take(done);
    bytes_done_ += tensor.bytes_read + tensor.output.bytes();
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

void MergeRun::take(const FinishedTensor& finished) {
  const std::span<const Digest> digests = finished.digests;
  hashes_.add(finished.tensor, digests.first(digests.size() - 1));
  output_digests_[finished.tensor] = digests.back();
  clamped_ += finished.clamped;
  nonfinite_ += finished.nonfinite;
}

void MergeRun::work(
    const Chunk& chunk,
    Worker& worker,
    CheckpointWriter& writer,
    Staging& staging) {
  const TensorPlan& tensor = plan_.tensors[chunk.tensor];
  TensorState& state = tensors_[chunk.tensor];
  const size_t sources = tensor.sources.size();
  std::call_once(state.begun, [&] {
    state.blocks.resize((sources + 1) * static_cast<size_t>(chunk.count));
  });
  worker.digests.resize(sources + 1);
  const MergedChunk merged = tensor.action == TensorAction::kMerge
      ? merge(tensor, chunk, worker)
      : copy(tensor, chunk, worker);
  const uint64_t bits = dtype_bits(tensor.output.dtype);
  writer.write(tensor.output.name, merged.bytes, chunk.begin * bits / 8);
  worker.digests.back() = hash_bytes(merged.bytes);
  for (size_t s = 0; s <= sources; ++s) {
    state.blocks[s * chunk.count + chunk.index] = worker.digests[s];
  }
  uint64_t bytes = merged.bytes.size();
  for (const StoredTensor& source : tensor.sources) {
    bytes += chunk.n * dtype_bits(source.info().dtype) / 8;
  }
  bytes_done_ += bytes;
  state.clamped += merged.clamped;
  state.nonfinite += merged.nonfinite;
  if (++state.done == chunk.count) {
    finish(chunk, state, staging);
  }
}

MergedChunk MergeRun::merge(
    const TensorPlan& tensor,
    const Chunk& chunk,
    Worker& worker) const {
  const auto merge_with = [&](auto& merger) {
    if (!merger) {
      merger.emplace(plan_, allow_nonfinite_);
    }
    return merger->merge(tensor, chunk, worker.digests);
  };
  return tensor.float64 ? merge_with(worker.float64)
                        : merge_with(worker.float32);
}

MergedChunk MergeRun::copy(
    const TensorPlan& tensor,
    const Chunk& chunk,
    Worker& worker) const {
  const uint64_t bits = dtype_bits(tensor.output.dtype);
  worker.bytes.resize(chunk.n * bits / 8);
  tensor.sources[0].read(worker.bytes, chunk.begin * bits / 8);
  worker.digests[0] = hash_bytes(worker.bytes);
  return {.bytes = worker.bytes};
}

// All chunks of a tensor are written.
void MergeRun::finish(
    const Chunk& chunk,
    TensorState& state,
    Staging& staging) {
  FinishedTensor finished = {
      .tensor = chunk.tensor,
      .clamped = state.clamped,
      .nonfinite = state.nonfinite,
      .digests = {}};
  const std::span<const Digest> blocks = state.blocks;
  const int64_t used = hash_blocks(plan_.tensors[chunk.tensor].output);
  for (size_t begin = 0; begin < blocks.size(); begin += chunk.count) {
    finished.digests.push_back(combine_digests(blocks.subspan(begin, used)));
  }
  state.blocks = {};
  staging.add(finished.to_line());
  take(finished);
}

} // namespace merganser
