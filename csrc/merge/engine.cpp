#include "merge/engine.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <limits>
#include <map>
#include <optional>

#include "io/atomic_file.h"
#include "io/error.h"
#include "io/interrupt.h"
#include "io/parallel.h"
#include "io/version.h"
#include "merge/output_config.h"
#include "merge/preflight.h"
#include "merge/tensor_merger.h"

namespace merganser {
namespace {

namespace fs = std::filesystem;

// As large as the reference's shards, or one file if that is one.
uint64_t shard_bytes(const Checkpoint& reference) {
  if (reference.files().size() == 1) {
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

Metadata provenance(const MergePlan& plan) {
  return {
      {"merge_method", std::string(method_info(plan.recipe.method).name)},
      {"merge_recipe", plan.recipe.text},
      {"merganser_version", version()}};
}

class Engine {
 public:
  Engine(const MergePlan& plan, int threads)
      : plan_(plan), threads_(threads), workers_(threads) {}

  MergeReport run(const fs::path& folder, const ProgressCallback& progress) {
    MergeReport report;
    report.method = plan_.recipe.method;
    std::vector<TensorInfo> outputs;
    for (const TensorPlan& row : plan_.tensors) {
      outputs.push_back(row.output);
    }
    CheckpointWriter writer(
        folder,
        std::move(outputs),
        provenance(plan_),
        shard_bytes(plan_.reference_weights()));
    for (const TensorPlan& row : plan_.tensors) {
      check_interrupt();
      if (row.action == TensorAction::kMerge) {
        merge(row, writer, report);
      } else {
        copy(plan_.reference_weights(), row.output, writer);
        ++report.tensors_copied;
      }
      report.bytes_read += row.bytes_read;
      report.bytes_written += row.output.bytes();
      if (progress) {
        constexpr uint64_t kMegabyte = 1'000'000;
        progress(
            (report.bytes_read + report.bytes_written) / kMegabyte,
            (plan_.bytes_read + plan_.bytes_written) / kMegabyte,
            "");
      }
    }
    writer.finish();
    for (size_t t = 0; t < plan_.heads.size(); ++t) {
      write_head(plan_.heads[t], plan_.models[t], folder, report);
    }
    return report;
  }

 private:
  struct Worker {
    std::optional<TensorMerger<float>> float32;
    std::optional<TensorMerger<double>> float64;
  };

  void merge(
      const TensorPlan& row,
      CheckpointWriter& writer,
      MergeReport& report) {
    const TensorInfo& output = row.output;
    const int64_t numel = output.numel();
    const int64_t chunks = (numel + kChunkElements - 1) / kChunkElements;
    std::atomic<int64_t> clamped = 0;
    parallel_for(threads_, chunks, [&](int64_t chunk, int worker) {
      const int64_t begin = chunk * kChunkElements;
      const int64_t n = std::min(kChunkElements, numel - begin);
      const uint64_t offset = begin * dtype_bits(output.dtype) / 8;
      const auto work = [&](auto& merger) {
        if (!merger) {
          merger.emplace(plan_);
        }
        int64_t count = 0;
        writer.write(
            output.name, merger->merge(output, begin, n, count), offset);
        clamped += count;
      };
      if (row.float64) {
        work(workers_[worker].float64);
      } else {
        work(workers_[worker].float32);
      }
    });
    ++report.tensors_merged;
    report.elements += numel;
    report.clamped += clamped;
  }

  template <typename Writer>
  void copy(
      const Checkpoint& source,
      const TensorInfo& tensor,
      Writer& writer) {
    constexpr uint64_t kPart = 1 << 20;
    std::vector<std::byte> buffer(std::min(kPart, tensor.bytes()));
    for (uint64_t offset = 0; offset < tensor.bytes(); offset += kPart) {
      const auto part =
          std::span(buffer).first(std::min(kPart, tensor.bytes() - offset));
      source.read(tensor.name, part, offset);
      writer.write(tensor.name, part, offset);
    }
  }

  void write_head(
      const TaskHead& head,
      const Checkpoint& model,
      const fs::path& folder,
      MergeReport& report) {
    const fs::path file = folder / head.file;
    fs::create_directories(file.parent_path());
    SafetensorsWriter writer(file, head.tensors, {{"format", "pt"}});
    for (const TensorInfo& tensor : head.tensors) {
      copy(model, tensor, writer);
      report.bytes_read += tensor.bytes();
      report.bytes_written += tensor.bytes();
    }
    writer.finish();
  }

  const MergePlan& plan_;
  const int threads_;
  std::vector<Worker> workers_;
};

} // namespace

MergeReport execute_merge(
    const MergePlan& plan,
    const fs::path& out,
    int threads,
    const ProgressCallback& progress) {
  const auto start = std::chrono::steady_clock::now();
  threads = thread_count(threads);
  if (out.empty()) {
    throw InputError("the output folder has no name");
  }
  check_space(out, plan.bytes_written);
  AtomicDirectory directory(out, /*replace=*/false);
  check_fishers(plan, threads);
  MergeReport report = Engine(plan, threads).run(directory.path(), progress);
  plan.reference->copy_without_weights(directory.path());
  if (plan.recipe.out_dtype) {
    set_config_dtype(directory.path() / "config.json", *plan.recipe.out_dtype);
  }
  directory.commit();
  const std::chrono::duration<double> seconds =
      std::chrono::steady_clock::now() - start;
  report.seconds = seconds.count();
  return report;
}

} // namespace merganser
