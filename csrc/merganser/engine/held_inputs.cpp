#include "merganser/engine/held_inputs.h"

namespace merganser {

void HeldInputs::hold(MergePlan& plan) {
  for (TensorPlan& tensor : plan.tensors) {
    for (TensorSource& source : tensor.sources) {
      auto& held = tensors_[{
          plan.inputs[source.input]->path(), source.tensor.info().name}];
      if (held == nullptr) {
        Tensor read{source.tensor.file(), source.tensor.info(), {}};
        read.data.resize(read.info.bytes());
        source.tensor.read(read.data);
        held = std::make_unique<const Tensor>(std::move(read));
      }
      source.tensor = StoredTensor(held->data, held->info, held->file);
    }
  }
}

} // namespace merganser
