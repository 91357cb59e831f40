#include "merganser/train/proximal.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <iterator>
#include <numeric>

#include "merganser/base/error.h"
#include "merganser/io/checkpoint.h"
#include "merganser/io/fisher_file.h"
#include "merganser/numeric/simd.h"

namespace merganser {
namespace {

FisherMetadata read_metadata(const Checkpoint& file) {
  const auto metadata = FisherMetadata::parse(file.metadata(), file.path());
  if (!metadata) {
    throw InputError(fmt::format(
        "{}: not a Fisher file of merganser: its metadata lacks "
        "format_version, so its number of examples is unknown",
        file.path().string()));
  }
  return *metadata;
}

at::Tensor read_tensor(const Checkpoint& file, const Arena::Entry& entry) {
  const TensorInfo* info = file.find(entry.name);
  if (info == nullptr) {
    throw InputError(fmt::format(
        "{}: the Fisher of {} is missing", file.path().string(), entry.name));
  }
  if (info->dtype != DType::kF32 || info->shape != entry.shape) {
    throw InputError(fmt::format(
        "{}: tensor {} must be F32 with the model's shape",
        file.path().string(),
        entry.name));
  }
  at::Tensor out = at::empty(entry.shape, at::kFloat);
  file.read(
      entry.name, {static_cast<std::byte*>(out.data_ptr()), out.nbytes()});
  return out;
}

// Adds the pull precision * (now - start) to the gradient; returns the sum of
// pull * (now - start).
double add_pull(
    const float* __restrict now,
    const float* __restrict start,
    const float* __restrict precision,
    float* __restrict gradient,
    int64_t n) {
  // Independent sums, so that additions do not wait for each other.
  constexpr int64_t kLanes = 32;
  double sums[kLanes] = {};
  widest([&] {
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
      for (int64_t lane = 0; lane < kLanes; lane++) {
        const float difference = now[i + lane] - start[i + lane];
        const float pull = precision[i + lane] * difference;
        gradient[i + lane] += pull;
        sums[lane] += static_cast<double>(pull) * difference;
      }
    }
    for (; i < n; i++) {
      const float difference = now[i] - start[i];
      const float pull = precision[i] * difference;
      gradient[i] += pull;
      sums[0] += static_cast<double>(pull) * difference;
    }
  });
  return std::accumulate(std::begin(sums), std::end(sums), 0.0);
}

} // namespace

Proximal::Proximal(
    const Arena& arena,
    const std::vector<std::filesystem::path>& fishers,
    const std::string& model_hash,
    double weight,
    int64_t num_examples)
    : start_(arena.parameters.clone()), precision_(arena.zeros()) {
  bool of_start = false;
  std::vector<std::string> names; // for the message
  for (const std::filesystem::path& fisher : fishers) {
    const Checkpoint file(fisher);
    names.push_back(fisher.string());
    const FisherMetadata metadata = read_metadata(file);
    const std::string& hash = metadata.base_model_hash;
    of_start = of_start || hash.empty() || hash == model_hash;
    const double scale = weight * static_cast<double>(metadata.num_examples) /
        static_cast<double>(num_examples);
    for (const Arena::Entry& entry : arena.entries()) {
      Arena::view(precision_, entry).add_(read_tensor(file, entry), scale);
    }
  }
  if (!of_start) {
    throw InputError(fmt::format(
        "{}: of another model; one Fisher must belong to the model that "
        "training starts from: estimate it with merganser fisher --model",
        fmt::join(names, ", ")));
  }
}

double Proximal::add_gradient(const Arena& arena) const {
  constexpr int64_t kBlock = 1 << 15;
  const int64_t size = arena.parameters.numel();
  std::vector<double> sums((size + kBlock - 1) / kBlock);
  at::parallel_for(
      0, static_cast<int64_t>(sums.size()), 1, [&](int64_t begin, int64_t end) {
        for (int64_t block = begin; block < end; block++) {
          const int64_t at = block * kBlock;
          sums[block] = add_pull(
              arena.parameters.const_data_ptr<float>() + at,
              start_.const_data_ptr<float>() + at,
              precision_.const_data_ptr<float>() + at,
              arena.gradients.data_ptr<float>() + at,
              std::min(kBlock, size - at));
        }
      });
  return 0.5 * std::accumulate(sums.begin(), sums.end(), 0.0);
}

} // namespace merganser
