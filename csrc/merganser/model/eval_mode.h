#pragma once

#include "merganser/model/encoder.h"

namespace merganser {

// Puts a model into eval mode while this exists, then restores its mode.
class EvalMode {
 public:
  explicit EvalMode(EncoderImpl& model)
      : model_(model), was_training_(model.is_training()) {
    model_.eval();
  }
  ~EvalMode() {
    model_.train(was_training_);
  }
  EvalMode(const EvalMode&) = delete;
  EvalMode& operator=(const EvalMode&) = delete;

 private:
  EncoderImpl& model_;
  bool was_training_;
};

} // namespace merganser
