#include "merganser/train/proximal.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <iterator>
#include <numeric>
#include <span>

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

// Elements that are skipped together where their precision is zero: half of a
// model are vectors of words, many of which the data of the Fishers lack.
constexpr int64_t kUnit = 128;

std::vector<int64_t> find_units(const at::Tensor& precision) {
  const float* values = precision.const_data_ptr<float>();
  const int64_t size = precision.numel();
  std::vector<int64_t> units;
  for (int64_t begin = 0; begin < size; begin += kUnit) {
    const float* end = values + std::min(begin + kUnit, size);
    if (std::any_of(values + begin, end, [](float x) { return x != 0; })) {
      units.push_back(begin);
    }
  }
  return units;
}

struct Arrays {
  const float* now;
  const float* start;
  const float* precision;
  float* gradient;
  int64_t size;
};

// Adds the pull precision * (now - start) to the gradient; returns the sum of
// pull * (now - start).
double add_pull(const Arrays& arrays, std::span<const int64_t> units) {
  // Independent sums, so that additions do not wait for each other.
  constexpr int64_t kLanes = 32;
  double sums[kLanes] = {};
  widest([&] {
    for (const int64_t unit : units) {
      const float* __restrict now = arrays.now + unit;
      const float* __restrict start = arrays.start + unit;
      const float* __restrict precision = arrays.precision + unit;
      float* __restrict gradient = arrays.gradient + unit;
      const int64_t n = std::min(kUnit, arrays.size - unit);
      for (int64_t i = 0; i < n; i += kLanes) {
        const int64_t lanes = std::min(kLanes, n - i);
        for (int64_t lane = 0; lane < lanes; lane++) {
          const float difference = now[i + lane] - start[i + lane];
          const float pull = precision[i + lane] * difference;
          gradient[i + lane] += pull;
          sums[lane] += static_cast<double>(pull) * difference;
        }
      }
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
  units_ = find_units(precision_);
}

double Proximal::add_gradient(const Arena& arena) const {
  constexpr size_t kUnitsPerSum = 256;
  const Arrays arrays{
      arena.parameters.const_data_ptr<float>(),
      start_.const_data_ptr<float>(),
      precision_.const_data_ptr<float>(),
      arena.gradients.data_ptr<float>(),
      arena.parameters.numel()};
  const std::span<const int64_t> units(units_);
  std::vector<double> sums((units.size() + kUnitsPerSum - 1) / kUnitsPerSum);
  at::parallel_for(
      0, static_cast<int64_t>(sums.size()), 1, [&](int64_t begin, int64_t end) {
        for (auto k = static_cast<size_t>(begin); k < static_cast<size_t>(end);
             k++) {
          const auto rest = units.subspan(k * kUnitsPerSum);
          sums[k] =
              add_pull(arrays, rest.first(std::min(kUnitsPerSum, rest.size())));
        }
      });
  return 0.5 * std::accumulate(sums.begin(), sums.end(), 0.0);
}

} // namespace merganser
