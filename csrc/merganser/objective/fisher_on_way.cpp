#include "merganser/objective/fisher_on_way.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>

#include "merganser/base/error.h"
#include "merganser/fisher/fisher.h"
#include "merganser/io/checkpoint.h"
#include "merganser/objective/model_parameters.h"
#include "merganser/train/arena.h"

namespace merganser {
namespace {

// Moves parameters a share of the path from `begin` to `end`.
void move(
    at::Tensor& parameters,
    const at::Tensor& begin,
    const at::Tensor& end,
    double share) {
  const at::NoGradGuard no_grad;
  parameters.copy_(share == 1 ? end : at::lerp(begin, end, share));
}

} // namespace

FisherResult estimate_fisher_on_way(
    Encoder& model,
    const FisherWay& way,
    const Dataset& data,
    int32_t pad_id,
    const FisherOptions& options,
    const ProgressCallback& progress) {
  if (way.points < 0) {
    throw InputError(
        fmt::format("expected at least one point, got {}", way.points));
  }
  Arena arena(model->named_parameters());
  const at::Tensor end =
      flat_parameters(Classifier(way.at), way.at, arena, way.model);
  const at::Tensor begin = arena.parameters.clone();
  const int64_t points = std::max<int64_t>(way.points, 1);
  FisherResult mean;
  for (int64_t point = 0; point < points; ++point) {
    const double middle =
        (static_cast<double>(point) + 0.5) / static_cast<double>(points);
    move(arena.parameters, begin, end, way.points == 0 ? 1 : middle);
    FisherResult found = estimate_fisher(
        model,
        data,
        pad_id,
        options,
        [&](int64_t done, int64_t total, const std::string& text) {
          if (progress) {
            progress(point * total + done, points * total, text);
          }
        });
    if (point == 0) {
      mean = std::move(found);
      continue;
    }
    for (size_t i = 0; i < mean.diagonal.size(); ++i) {
      mean.diagonal[i].second.add_(found.diagonal[i].second);
    }
  }
  for (auto& [name, values] : mean.diagonal) {
    values.div_(points);
  }
  move(arena.parameters, begin, begin, 1);
  mean.at = FisherPoint{Checkpoint(way.at).content_hash(), way.points};
  return mean;
}

} // namespace merganser
