#pragma once

#include <cstdint>
#include <functional>

#include "merganser/base/api.h"

namespace merganser {

// 0: as many as the process may use.
MERGANSER_API int thread_count(int requested);

// work(i, worker) for every i < count, in increasing order over at most
// `threads` workers; the calling thread is worker 0. Asks for an interrupt
// between its own items. After an exception no further item is begun, and the
// one of the lowest item is thrown: the same whatever the number of threads.
void parallel_for(
    int threads,
    int64_t count,
    const std::function<void(int64_t i, int worker)>& work);

} // namespace merganser
