#pragma once

#include <ATen/core/Tensor.h>
#include <torch/ordered_dict.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "merganser/base/api.h"
#include "merganser/model/config.h"
#include "merganser/model/layers.h"

namespace merganser {

// BERT or RoBERTa with a sequence classification head. Parameters have the
// names of transformers' BertForSequenceClassification and
// RobertaForSequenceClassification, and are zero after construction.
class MERGANSER_API EncoderImpl {
 public:
  explicit EncoderImpl(EncoderConfig config);

  // Functions of torch::nn::Module, whose header takes seconds to compile in
  // every file that includes it: only the sources of model/ do.
  torch::OrderedDict<std::string, at::Tensor> named_parameters() const;
  std::vector<at::Tensor> parameters() const;
  bool is_training() const;
  void train(bool on = true);
  void eval();
  void to(at::ScalarType dtype);

  // Initializes as transformers does: weights from N(0, initializer_range),
  // biases and padding rows 0, LayerNorms 1.
  void initialize(uint64_t seed);

  // input_ids (B, L) int64; lengths (B) int64, from 1 to L, on the same device:
  // tokens after an example's length are padding. token_type_ids (B, L) or
  // undefined for all zero. Returns logits (B, num_labels). In torch's
  // inference mode, attention has a kernel of its own, with other rounding.
  at::Tensor forward(
      const at::Tensor& input_ids,
      const at::Tensor& lengths,
      const at::Tensor& token_type_ids = {});

  // Seed (initially 0) of the dropout masks of the following forward passes in
  // training mode; the masks depend on no other state.
  void seed_dropout(uint64_t seed);

  // Makes backward passes fill the sink (see layers.h) until it is null again.
  // Not owned.
  void set_gradient_sink(GradientSink* sink);

  // Makes forward passes call `watch` for every linear layer until it is empty
  // again. Inputs of the layers are (B, L, in), with padding; those of the head
  // are (B, in). The last layer then computes the outputs of all tokens, which
  // the logits do not depend on.
  void watch_inputs(WatchInputs watch);

  // Makes forward passes return the first-order model at the parameters theta,
  //   f(x; theta) + J(x; theta) tau,
  // without dropout, until `tau` is empty again. A backward pass adds J^T r to
  // the parameters' gradients: the gradient in tau. tau has a tensor for each
  // of parameters(), of the same shape, and is read in every forward pass.
  void set_displacement(std::vector<at::Tensor> tau);
  bool is_linearized() const {
    return !displacement_.empty();
  }

  const EncoderConfig& config() const {
    return config_;
  }

 private:
  at::Tensor logits(
      const at::Tensor& input_ids,
      const at::Tensor& lengths,
      const at::Tensor& token_type_ids,
      DropoutDraws* draws);

  struct Network; // the module and its submodules
  EncoderConfig config_;
  std::shared_ptr<Network> network_;
  GradientSink* sink_ = nullptr;
  WatchInputs watch_;
  std::vector<at::Tensor> displacement_;
  DropoutDraws draws_;
};

// Copies share the model.
using Encoder = std::shared_ptr<EncoderImpl>;

// Reads a model directory. Checkpoints of bare encoders (without the
// "bert."/"roberta." prefix) and of other heads load too: tensors of the head
// (the classifier, BERT's pooler) that are absent are initialized as by
// initialize() and reported in `fresh`. num_labels > 0 replaces the config's.
// Throws InputError naming any other tensor that is missing or has another
// shape; ignores tensors that the model does not use (position_ids, lm_head).
// F16, BF16 and F64 are converted to float32. `dropout` replaces every dropout
// probability of the config, in memory only.
struct LoadedEncoder {
  Encoder model;
  std::vector<std::string> fresh; // names of parameters not in the checkpoint
};
MERGANSER_API LoadedEncoder load_encoder(
    const std::filesystem::path& folder,
    int64_t num_labels,
    uint64_t seed,
    std::optional<double> dropout = {});

// Writes weights (float32), config.json and the tokenizer files of `source`
// into `folder`, which must exist. AutoModelForSequenceClassification and
// AutoTokenizer load the result.
MERGANSER_API void save_encoder(
    const Encoder& model,
    const std::filesystem::path& source,
    const std::filesystem::path& folder);

} // namespace merganser
