#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/text/dataset.h"

namespace merganser {

// Processes of torchrun that share the examples of an evaluation: each predicts
// every size()-th batch, and rank 0 receives all predictions. They are the same
// bits for any number of processes. All ranks make the same calls, which wait
// for one another until a signal, such as torchrun's after a rank has failed,
// and throw Error where the job's store is lost.
class MERGANSER_API Ranks {
 public:
  // This process as the environment describes it (RANK, WORLD_SIZE,
  // MASTER_ADDR, MASTER_PORT, as torchrun sets them), connected to the store of
  // its job; the only process if WORLD_SIZE is 1 or missing. Throws InputError
  // for an incomplete environment, Error if the store cannot be reached or a
  // rank has not come after a minute.
  static Ranks from_environment();
  ~Ranks();
  Ranks(Ranks&&) noexcept;

  int64_t rank() const {
    return rank_;
  }
  int64_t size() const {
    return size_;
  }

  // Compares a text that identifies model, data and options. At rank 0 throws
  // InputError naming a rank with another one.
  void compare(const std::string& inputs);

  // The examples of this process: every size()-th of sorted_batches().
  Dataset share(const Dataset& data, int64_t batch_size) const;

  // Rows of all examples (N, K) at rank 0, from each rank's rows of its share
  // (n, K), float64; undefined at other ranks.
  at::Tensor gather(
      const at::Tensor& rows,
      const Dataset& data,
      int64_t batch_size);

 private:
  struct Store;
  Ranks(int64_t rank, int64_t size, std::unique_ptr<Store> store);

  void meet(); // all ranks
  std::vector<int64_t> positions(
      const Dataset& data,
      int64_t batch_size,
      int64_t rank) const;

  int64_t rank_;
  int64_t size_;
  std::unique_ptr<Store> store_; // null for the only process
};

} // namespace merganser
