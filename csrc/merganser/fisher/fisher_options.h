#pragma once

#include <cstdint>
#include <string>

#include "merganser/base/api.h"
#include "merganser/io/fisher_file.h"

namespace merganser {

enum class Estimator { kExact, kMc, kEmpirical, kMcBatch };

// Throws InputError for an unknown name.
MERGANSER_API Estimator parse_estimator(const std::string& name);
MERGANSER_API std::string estimator_name(Estimator estimator);
// All names, separated by commas.
MERGANSER_API std::string estimator_names();

struct FisherOptions {
  Estimator estimator = Estimator::kExact;
  int64_t samples = 1; // mc, mc_batch: labels sampled per example
  int64_t limit = -1; // number of examples, sampled with `seed`; -1: all
  uint64_t seed = 0;
  int64_t batch_size = 32;
  bool bfloat16 = false; // autocast; the sums stay float32
  FisherStorage storage = FisherStorage::kFloat32; // of the result's file
};

// Throw InputError for an option out of range.
void check_options(const FisherOptions& options);
void check_examples(int64_t limit, int64_t batch_size);

} // namespace merganser
