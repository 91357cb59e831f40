#include "merganser/model/initialize.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

namespace merganser {

void initialize_parameter(
    const std::string& name,
    at::Tensor parameter,
    const EncoderConfig& config,
    at::Generator& generator) {
  const at::NoGradGuard no_grad;
  const bool roberta = config.architecture == Architecture::kRoberta;
  if (name.ends_with(".bias")) {
    parameter.zero_();
  } else if (name.ends_with("LayerNorm.weight")) {
    parameter.fill_(1);
  } else {
    parameter.normal_(0, config.initializer_range, generator);
    const bool has_padding_row = name.ends_with("word_embeddings.weight") ||
        (roberta && name.ends_with("position_embeddings.weight"));
    if (has_padding_row && config.pad_token_id >= 0) {
      parameter[config.pad_token_id].zero_();
    }
  }
}

} // namespace merganser
