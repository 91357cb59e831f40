#pragma once

#include "merganser/base/api.h"
#include "merganser/base/progress.h"
#include "merganser/train/train_options.h"
#include "merganser/train/train_result.h"

namespace merganser {

// Fine-tunes and leaves in options.out: the model (Hugging Face directory),
// metrics.jsonl, and fisher.safetensors if asked for.
//
// The model is that of the last epoch; with files to evaluate on and no Fisher
// it is that of the epoch with the highest mean accuracy, the first of equals.
// A Fisher belongs to the end of training, so that it comes with the last.
//
// While it runs, out's sibling "<out>.partial" holds the last checkpoint;
// called again with the same options and data, it goes on from there and ends
// with the same bits as a run that was never interrupted (on one machine, with
// one number of threads). Throws InputError for bad options or data, Error for
// what fails on the way (a loss that is not finite, a full disk), and
// Interrupted, after a checkpoint, on Ctrl-C.
MERGANSER_API TrainResult
train(const TrainOptions& options, const ProgressCallback& progress = {});

} // namespace merganser
