#include "merganser/base/parallel.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <limits>
#include <mutex>
#include <thread>
#include <vector>

#include "merganser/base/interrupt.h"

namespace merganser {

int thread_count(int requested) {
  return requested > 0
      ? requested
      : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

void parallel_for(
    int threads,
    int64_t count,
    const std::function<void(int64_t i, int worker)>& work) {
  std::atomic<int64_t> next = 0;
  std::mutex mutex;
  std::exception_ptr failure;
  int64_t failed = std::numeric_limits<int64_t>::max();

  const auto run = [&](int worker) {
    for (int64_t i = next++; i < count; i = next++) {
      try {
        if (worker == 0) {
          check_interrupt();
        }
        work(i, worker);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (i < failed) {
          failed = i;
          failure = std::current_exception();
        }
        next = count; // items before i have started and will finish
      }
    }
  };

  std::vector<std::jthread> helpers;
  const auto workers = static_cast<int>(std::min<int64_t>(threads, count));
  for (int worker = 1; worker < workers; ++worker) {
    helpers.emplace_back(run, worker);
  }
  run(0);
  helpers.clear(); // joins
  if (failure) {
    std::rethrow_exception(failure);
  }
}

} // namespace merganser
