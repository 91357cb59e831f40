#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/plan/plan.h"

namespace merganser {

// Data of checkpoints in memory: several plans over the same files read each
// tensor once. Adapters and Gram matrices are still read from their files.
class MERGANSER_API HeldInputs {
 public:
  // Makes the sources of the plan's tensors refer to copies in memory, which
  // must outlive it.
  void hold(MergePlan& plan);

 private:
  struct Tensor {
    std::filesystem::path file;
    TensorInfo info;
    std::vector<std::byte> data;
  };
  // Keys: path of the checkpoint, name in it.
  std::map<
      std::pair<std::filesystem::path, std::string>,
      std::unique_ptr<const Tensor>>
      tensors_;
};

} // namespace merganser
