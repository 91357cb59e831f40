#include "merganser/model/first_order.h"

#include <ATen/ops/sub.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "merganser/base/error.h"

namespace merganser {

void displace(
    Encoder& origin,
    const Encoder& model,
    const std::string& model_name) {
  const auto theta = model->named_parameters();
  std::vector<at::Tensor> tau;
  for (const auto& item : origin->named_parameters()) {
    const at::Tensor* found = theta.find(item.key());
    if (found == nullptr || found->sizes() != item.value().sizes()) {
      throw InputError(fmt::format(
          "{}: expected the tensors of the model that it is linearized at, "
          "which has {} of shape ({})",
          model_name,
          item.key(),
          fmt::join(item.value().sizes(), ", ")));
    }
    tau.push_back(found->detach() - item.value().detach());
  }
  origin->set_displacement(std::move(tau));
}

} // namespace merganser
