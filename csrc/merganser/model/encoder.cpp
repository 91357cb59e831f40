#include "merganser/model/encoder.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <limits>

#include "merganser/model/embeddings.h"
#include "merganser/model/forward_mode.h"
#include "merganser/model/initialize.h"
#include "merganser/model/transformer.h"

namespace merganser {
namespace modules {
namespace {

struct Pooler : torch::nn::Module {
  explicit Pooler(const EncoderConfig& config)
      : dense(register_module(
            "dense",
            std::make_shared<Linear>(config.hidden_size, config.hidden_size))) {
  }

  std::shared_ptr<Linear> dense;
};

// "bert" or "roberta".
struct Backbone : torch::nn::Module {
  explicit Backbone(const EncoderConfig& config)
      : embeddings(register_module(
            "embeddings",
            std::make_shared<Embeddings>(config))),
        encoder(register_module("encoder", std::make_shared<Stack>(config))) {
    if (config.architecture == Architecture::kBert) {
      pooler = register_module("pooler", std::make_shared<Pooler>(config));
    }
  }

  std::shared_ptr<Embeddings> embeddings;
  std::shared_ptr<Stack> encoder;
  std::shared_ptr<Pooler> pooler; // null for RoBERTa
};

// RoBERTa's head; BERT's is one Linear.
struct RobertaHead : torch::nn::Module {
  explicit RobertaHead(const EncoderConfig& config)
      : dense(register_module(
            "dense",
            std::make_shared<Linear>(config.hidden_size, config.hidden_size))),
        out_proj(register_module(
            "out_proj",
            std::make_shared<Linear>(config.hidden_size, config.num_labels))) {}

  std::shared_ptr<Linear> dense, out_proj;
};

} // namespace
} // namespace modules

using modules::Pass;

struct EncoderImpl::Network : torch::nn::Module {
  explicit Network(const EncoderConfig& config) {
    const bool roberta = config.architecture == Architecture::kRoberta;
    backbone = register_module(
        roberta ? "roberta" : "bert",
        std::make_shared<modules::Backbone>(config));
    if (roberta) {
      roberta_head = register_module(
          "classifier", std::make_shared<modules::RobertaHead>(config));
    } else {
      bert_head = register_module(
          "classifier",
          std::make_shared<modules::Linear>(
              config.hidden_size, config.num_labels));
    }
  }

  std::shared_ptr<modules::Backbone> backbone;
  std::shared_ptr<modules::Linear> bert_head;
  std::shared_ptr<modules::RobertaHead> roberta_head;
};

EncoderImpl::EncoderImpl(EncoderConfig config)
    : config_(std::move(config)),
      network_(std::make_shared<Network>(config_)) {}

torch::OrderedDict<std::string, at::Tensor> EncoderImpl::named_parameters()
    const {
  return network_->named_parameters();
}

std::vector<at::Tensor> EncoderImpl::parameters() const {
  return network_->parameters();
}

bool EncoderImpl::is_training() const {
  return network_->is_training();
}

void EncoderImpl::train(bool on) {
  network_->train(on);
}

void EncoderImpl::eval() {
  network_->eval();
}

void EncoderImpl::to(at::ScalarType dtype) {
  network_->to(dtype);
}

void EncoderImpl::initialize(uint64_t seed) {
  auto generator = at::detail::createCPUGenerator(seed);
  for (auto& item : named_parameters()) {
    initialize_parameter(item.key(), item.value(), config_, generator);
  }
}

void EncoderImpl::set_gradient_sink(GradientSink* sink) {
  sink_ = sink;
}

void EncoderImpl::watch_inputs(WatchInputs watch) {
  watch_ = std::move(watch);
}

void EncoderImpl::set_displacement(std::vector<at::Tensor> tau) {
  displacement_ = std::move(tau);
}

namespace {

// (B, 1, 1, L): 0 for tokens, -inf after each example's end; undefined when
// nothing is padded. On a GPU, reading the lengths would wait for the device.
at::Tensor attention_mask(const at::Tensor& lengths, int64_t length) {
  if (lengths.is_cpu() && lengths.min().item<int64_t>() == length) {
    return {};
  }
  const at::Tensor padding =
      at::arange(length, lengths.options()) >= lengths.unsqueeze(1);
  return at::zeros(padding.sizes(), padding.options().dtype(at::kFloat))
      .masked_fill_(padding, -std::numeric_limits<float>::infinity())
      .unsqueeze(1)
      .unsqueeze(1);
}

} // namespace

void EncoderImpl::seed_dropout(uint64_t seed) {
  draws_ = {seed, 0};
}

at::Tensor EncoderImpl::forward(
    const at::Tensor& input_ids,
    const at::Tensor& lengths,
    const at::Tensor& token_type_ids) {
  TORCH_CHECK(
      input_ids.dim() == 2 && lengths.dim() == 1 &&
          lengths.size(0) == input_ids.size(0) && input_ids.numel() > 0,
      "Encoder: expected input_ids (B, L) and lengths (B), got ",
      input_ids.sizes(),
      " and ",
      lengths.sizes());
  TORCH_CHECK(
      input_ids.size(1) <= config_.max_length(),
      "Encoder: expected at most ",
      config_.max_length(),
      " tokens, got ",
      input_ids.size(1),
      "; truncate the input");
  if (!is_linearized()) {
    return logits(
        input_ids, lengths, token_type_ids, is_training() ? &draws_ : nullptr);
  }
  at::Tensor value;
  at::Tensor slope;
  {
    const ForwardMode forward_mode(parameters(), displacement_);
    value = logits(input_ids, lengths, token_type_ids, /*draws=*/nullptr);
    slope = forward_mode.tangent(value);
  }
  // float32 at least: in bfloat16 the sum would lose small slopes.
  return value + slope.to(at::promote_types(slope.scalar_type(), at::kFloat));
}

at::Tensor EncoderImpl::logits(
    const at::Tensor& input_ids,
    const at::Tensor& lengths,
    const at::Tensor& token_type_ids,
    DropoutDraws* draws) {
  if (sink_ != nullptr) {
    sink_->begin_forward();
  }
  const Pass pass{
      attention_mask(lengths, input_ids.size(1)),
      sink_,
      draws,
      watch_ ? &watch_ : nullptr};
  const auto drop = [&](const at::Tensor& tensor) {
    return layers::dropout(tensor, config_.classifier_dropout, pass.draws);
  };
  const at::Tensor embedded =
      network_->backbone->embeddings->forward(input_ids, token_type_ids, pass);
  const at::Tensor first = network_->backbone->encoder->forward(embedded, pass);
  if (const auto& head = network_->roberta_head) {
    const at::Tensor pooled = at::tanh(head->dense->forward(drop(first), pass));
    return head->out_proj->forward(drop(pooled), pass);
  }
  const at::Tensor pooled =
      at::tanh(network_->backbone->pooler->dense->forward(first, pass));
  return network_->bert_head->forward(drop(pooled), pass);
}

} // namespace merganser
