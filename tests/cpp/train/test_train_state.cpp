#include "merganser/train/train_state.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "merganser/base/error.h"
#include "support/temporary_folder.h"

namespace merganser {
namespace {

class TrainStateTest : public ::testing::Test {
 protected:
  TrainStateTest() : file_(folder_ / "train_state.safetensors") {
    state_.step = 17;
    state_.examples = 540;
    state_.epoch_loss = 0.1 + 0.2; // no short decimal
    state_.epoch_examples = 33;
    state_.fisher_examples = 12;
    state_.epochs = {{1, 10, 1.0 / 3, {{"dev.jsonl", 0.5, 0.7}}}};
    state_.best_epoch = 1;
    state_.best_accuracy = 0.625;
    state_.metrics_bytes = 1234;
  }

  std::string error(const std::string& fingerprint) {
    try {
      load_state(file_, fingerprint, {});
    } catch (const InputError& error) {
      return error.what();
    }
    return "";
  }

  test::TemporaryFolder folder_; // its own: tests run in parallel
  std::filesystem::path file_;
  TrainState state_;
};

TEST_F(TrainStateTest, ComesBackToTheBit) {
  const at::Tensor values = at::randn({1001});
  save_state(file_, state_, R"({"lr": 0.1})", {{"parameters", values}});
  const at::Tensor read = at::zeros({1001});
  const TrainState state =
      load_state(file_, R"({"lr": 0.1})", {{"parameters", read}});
  EXPECT_TRUE(read.equal(values));
  EXPECT_EQ(state.step, state_.step);
  EXPECT_EQ(state.examples, state_.examples);
  EXPECT_EQ(state.epoch_loss, state_.epoch_loss);
  EXPECT_EQ(state.epoch_examples, state_.epoch_examples);
  EXPECT_EQ(state.fisher_examples, state_.fisher_examples);
  EXPECT_EQ(state.best_epoch, state_.best_epoch);
  EXPECT_EQ(state.best_accuracy, state_.best_accuracy);
  EXPECT_EQ(state.metrics_bytes, state_.metrics_bytes);
  ASSERT_EQ(state.epochs.size(), 1u);
  EXPECT_EQ(state.epochs[0].train_loss, state_.epochs[0].train_loss);
  ASSERT_EQ(state.epochs[0].eval.size(), 1u);
  EXPECT_EQ(state.epochs[0].eval[0].file, "dev.jsonl");
  EXPECT_EQ(state.epochs[0].eval[0].accuracy, 0.5);
  EXPECT_EQ(state.epochs[0].eval[0].loss, 0.7);
}

TEST_F(TrainStateTest, RefusesAnotherRunAndSaysWhy) {
  save_state(file_, state_, R"({"lr": 0.1, "seed": 3})", {});
  EXPECT_EQ(error(R"({"lr": 0.1, "seed": 3})"), "");
  const std::string message = error(R"({"lr": 0.1, "seed": 4})");
  EXPECT_NE(message.find("seed = 3"), std::string::npos) << message;
  EXPECT_NE(message.find("has 4"), std::string::npos) << message;
  EXPECT_NE(error(R"({"lr": 0.1, "seed": 3, "new": 1})"), "");
}

TEST_F(TrainStateTest, RefusesAFileThatIsNoCheckpoint) {
  save_arrays(file_, {{"parameters", at::zeros({3})}});
  EXPECT_NE(error("{}"), "");
}

} // namespace
} // namespace merganser
