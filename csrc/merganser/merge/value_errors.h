#pragma once

#include "merganser/merge/chunk_reader.h"

namespace merganser {

// Who is to blame where a pass over a chunk has found a value that it refuses.

// Throws InputError naming file, tensor and index where a value is not finite.
void refuse_nonfinite(const StoredTensor& tensor, std::string_view why);

// Throws InputError naming file, tensor and index where the source has an
// adapter with a value that is not finite.
void refuse_bad_update(const TensorSource& source);

// Throws InputError naming file, tensor and index where a Fisher of the chunk
// that was read, times N, is more than T holds.
template <typename T>
void refuse_large_fishers(
    const MergePlan& plan,
    const TensorPlan& tensor,
    const Chunk& chunk,
    ChunkReader<T>& reader);

} // namespace merganser
