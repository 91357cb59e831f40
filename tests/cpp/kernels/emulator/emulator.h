#pragma once

// Runs CUDA kernels, compiled as C++, on the CPU: one block after another, each
// thread of a block a coroutine with its own stack, all on one thread of the
// machine. A coroutine runs until it ends or waits for others; then the next
// one continues. The order is the same on every run.
//
// Errors show: shared memory of a block starts as NaNs and has exactly the
// requested size, asynchronous copies arrive only in the wait for them, and a
// missing barrier changes the results if the threads run in the opposite order.

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>

namespace emulator {

struct Index {
  unsigned x = 1;
  unsigned y = 1;
  unsigned z = 1;
};

enum class Order { kAscending, kDescending };

// Order of the threads of a block.
inline Order order = Order::kAscending;

// Indices of the running thread.
inline Index thread_index, block_index, block_size, grid_size;

// Calls `thread` as every thread of every block. Throws std::runtime_error if
// one fails or waits for others that never arrive.
void run_grid(
    Index blocks,
    Index threads,
    size_t shared_bytes,
    const std::function<void()>& thread);

// Threads call the rest.
void fail(const char* reason);
void wait_for_block();
void wait_for_warp();

// Shared memory of the block for `key`, the same in all its threads. Each type
// has its own key.
void* shared_memory(const void* key, size_t bytes);
void* launch_memory(); // the shared_bytes of run_grid

void copy_async(void* to, const void* from, size_t bytes, bool exists);
void commit_copies();
void wait_for_copies(size_t groups_that_may_remain);

constexpr int kLanes = 32;
constexpr size_t kMailBytes = 64;
int lane();
std::array<std::byte, kMailBytes>& mail(int lane); // of the thread's warp

// Returns the values of all lanes of the warp.
template <typename T>
std::array<T, kLanes> exchange(const T& mine) {
  static_assert(sizeof(T) <= kMailBytes);
  std::memcpy(mail(lane()).data(), &mine, sizeof(T));
  wait_for_warp();
  std::array<T, kLanes> all;
  for (int i = 0; i < kLanes; ++i) {
    std::memcpy(&all[i], mail(i).data(), sizeof(T));
  }
  wait_for_warp();
  return all;
}

} // namespace emulator
