#include "merganser/fisher/gram.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <unordered_map>

#include "merganser/base/interrupt.h"
#include "merganser/fisher/fisher_options.h"
#include "merganser/fisher/result.h"
#include "merganser/model/autocast.h"
#include "merganser/model/batch_logits.h"
#include "merganser/model/eval_mode.h"
#include "merganser/text/batching.h"

namespace merganser {
namespace {

// Positions of the tokens in a flattened batch (B * L); undefined if nothing is
// padded.
at::Tensor token_positions(const Batch& batch) {
  std::vector<int64_t> positions;
  for (int64_t i = 0; i < batch.size; ++i) {
    for (int64_t l = 0; l < batch.lengths[i]; ++l) {
      positions.push_back(i * batch.length + l);
    }
  }
  return std::ssize(positions) == batch.size * batch.length
      ? at::Tensor()
      : at::tensor(positions, at::kLong);
}

// sum_i sum_l a_il a_il^T of every linear layer. While it exists, the model's
// forward passes serve this object only.
class GramSums {
 public:
  explicit GramSums(Encoder& model) : model_(model) {
    for (const auto& item : model_->named_parameters()) {
      positions_.emplace(item.value().unsafeGetTensorImpl(), sums_.size());
      sums_.emplace_back(item.key(), at::Tensor());
    }
    model_->watch_inputs([this](const at::Tensor& weight, const at::Tensor& a) {
      add(weight, a);
    });
  }
  ~GramSums() {
    model_->watch_inputs({});
  }
  GramSums(const GramSums&) = delete;
  GramSums& operator=(const GramSums&) = delete;

  void run(const Batch& batch, bool bfloat16) {
    tokens_ = token_positions(batch);
    if (tokens_.defined()) {
      tokens_ = tokens_.to(model_->parameters().front().device());
    }
    batch_logits(model_, batch, bfloat16);
    last_input_.reset();
  }

  // Sums by parameter name; undefined for all but weights of linear layers.
  const std::vector<std::pair<std::string, at::Tensor>>& sums() const {
    return sums_;
  }

 private:
  void add(const at::Tensor& weight, const at::Tensor& input) {
    // Query, key and value have one input.
    if (!input.is_same(last_input_)) {
      last_input_ = input;
      product_ = product_of(input);
    }
    at::Tensor& sum = sums_[positions_.at(weight.unsafeGetTensorImpl())].second;
    sum = sum.defined() ? sum.add_(product_) : product_.clone();
  }

  at::Tensor product_of(const at::Tensor& input) const {
    const Autocast float32(input.device().type(), /*bfloat16=*/false);
    at::Tensor rows = input.reshape({-1, input.size(-1)});
    if (input.dim() == 3 && tokens_.defined()) {
      rows = rows.index_select(0, tokens_);
    }
    rows = rows.to(at::kFloat);
    return at::mm(rows.t(), rows);
  }

  Encoder model_;
  std::unordered_map<const void*, size_t> positions_; // in `sums_`
  std::vector<std::pair<std::string, at::Tensor>> sums_;
  at::Tensor tokens_; // of the running batch
  at::Tensor last_input_;
  at::Tensor product_; // of `last_input_`
};

} // namespace

GramResult estimate_gram(
    Encoder& model,
    const Dataset& data,
    int32_t pad_id,
    const GramOptions& options,
    const ProgressCallback& progress) {
  check_examples(options.limit, options.batch_size);
  const at::NoGradGuard no_grad;
  const auto subset = draw_subset(data.size(), options.limit, options.seed);
  const auto total = static_cast<int64_t>(subset.size());

  const EvalMode eval_mode(*model);
  GramSums grams(model);
  int64_t done = 0;
  for (const auto& indices : sorted_batches(data, options.batch_size, subset)) {
    check_interrupt();
    const Batch batch = make_batch(data, indices, pad_id);
    grams.run(batch, options.bfloat16);
    done += batch.size;
    if (progress) {
      progress(done, total, "");
    }
  }

  GramResult result;
  result.num_examples = data.size();
  result.num_examples_used = total;
  for (const auto& [name, sum] : grams.sums()) {
    if (sum.defined()) {
      result.matrices.emplace_back(name, sum / static_cast<double>(total));
    }
  }
  return result;
}

void GramResult::save(const std::filesystem::path& file) const {
  write_fisher_file(
      file,
      matrices,
      {.estimator = kGramEstimator,
       .num_examples = num_examples,
       .num_examples_used = num_examples_used,
       .samples = 0,
       .seed = 0,
       .labels = "",
       .base_model_hash = model_hash});
}

} // namespace merganser
