#pragma once

#include "merganser/base/api.h"
#include "merganser/base/progress.h"
#include "merganser/train/train_options.h"
#include "merganser/train/train_result.h"

namespace merganser {

// Fine-tunes and writes to options.out: the model (Hugging Face directory),
// metrics.jsonl, and fisher.safetensors if requested.
//
// The model is the last epoch's; with files to evaluate on and no Fisher it is
// that of the epoch with the highest mean accuracy, the first of equals. A
// Fisher belongs to the end of training, so it comes with the last epoch's
// model. With options.linearized every loss and accuracy is the first-order
// model's; the model written is an ordinary one with the same parameters.
//
// During the run, "<out>.partial" next to out holds the last checkpoint. A call
// with the same options and data resumes from it and ends with the same bits as
// an uninterrupted run (on one machine, with one number of threads). Throws
// InputError for invalid options or data, Error for failures during the run (a
// loss that is not finite, a full disk), and Interrupted, after a checkpoint,
// on Ctrl-C.
MERGANSER_API TrainResult
train(const TrainOptions& options, const ProgressCallback& progress = {});

} // namespace merganser
