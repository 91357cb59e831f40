// Forward passes in inference mode, which use torch's attention kernel and
// share converted inputs, against ordinary passes.

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include "merganser/model/autocast.h"
#include "support/tiny_encoder.h"

namespace merganser {
namespace {

using test::tiny_encoder;
using test::TinyBatch;

class Inference : public ::testing::TestWithParam<Architecture> {
 protected:
  // The largest difference of the logits, relative to the largest logit.
  double error() {
    const TinyBatch batch;
    const at::Tensor expected = batch.logits(model).detach();
    const c10::InferenceMode inference;
    const at::Tensor actual = batch.logits(model);
    EXPECT_EQ(actual.scalar_type(), expected.scalar_type());
    const at::Tensor worst =
        (actual - expected).abs().max() / expected.abs().max();
    return worst.item<double>();
  }

  Encoder model = tiny_encoder(GetParam());
};

TEST_P(Inference, EqualsTheOrdinaryPass) {
  model->eval();
  EXPECT_LT(error(), 1e-5);
  model->to(at::kDouble);
  EXPECT_LT(error(), 1e-13);
}

TEST_P(Inference, EqualsItWithBfloat16Products) {
  model->eval();
  const Autocast autocast(at::kCPU, /*bfloat16=*/true);
  EXPECT_LT(error(), 2e-2);
}

INSTANTIATE_TEST_SUITE_P(
    Encoders,
    Inference,
    ::testing::Values(Architecture::kBert, Architecture::kRoberta),
    [](const auto& info) {
      return info.param == Architecture::kBert ? "bert" : "roberta";
    });

} // namespace
} // namespace merganser
