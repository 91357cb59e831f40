#include "merganser/train/tangent_space.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/sub.h>

#include <unordered_map>

namespace merganser {

TangentSpace::TangentSpace(Arena& arena, Encoder model)
    : arena_(arena),
      model_(std::move(model)),
      origin_(arena.parameters.clone()),
      displacement_(arena.zeros()) {
  arena.compute_with(origin_);
  std::unordered_map<std::string, at::Tensor> views;
  for (const Arena::Entry& entry : arena.entries()) {
    views[entry.name] = Arena::view(displacement_, entry);
  }
  std::vector<at::Tensor> displacement;
  for (const auto& item : model_->named_parameters()) {
    displacement.push_back(views.at(item.key()));
  }
  model_->set_displacement(std::move(displacement));
}

void TangentSpace::update() {
  at::sub_out(displacement_, arena_.parameters, origin_);
}

void TangentSpace::leave() {
  model_->set_displacement({});
  arena_.compute_with(arena_.parameters);
}

} // namespace merganser
