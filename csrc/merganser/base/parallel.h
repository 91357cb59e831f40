#pragma once

#include <cstdint>
#include <functional>

#include "merganser/base/api.h"

namespace merganser {

// The number of threads to use; 0 requests all that the process may use.
MERGANSER_API int thread_count(int requested);

// Calls work(i, worker) for every i < count, in increasing order over at most
// `threads` workers; the calling thread is worker 0 and checks for an interrupt
// between its own items. After an exception no further item starts, and the
// exception of the lowest item is rethrown: the same for any number of
// threads.
void parallel_for(
    int threads,
    int64_t count,
    const std::function<void(int64_t i, int worker)>& work);

} // namespace merganser
