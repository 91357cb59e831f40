#pragma once

// Runs CUDA kernels, compiled as C++, on the CPU: block after block, each
// thread of a block a coroutine with a stack of its own, on one thread of the
// machine. A thread runs until it ends or waits for others, and then the next
// one goes on: the same way on every run.
//
// What is missing shows: shared memory of a block starts as NaNs and is exactly
// as large as was asked for, asynchronous copies arrive when they are waited
// for and not before, and a missing barrier gives other results when the
// threads run in the opposite order.

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

// In which order the threads of a block run.
inline Order order = Order::kAscending;

// Of the thread that runs.
inline Index thread_index, block_index, block_size, grid_size;

// Calls `thread` as every thread of every block. Throws std::runtime_error
// where one fails, or waits for others that never come.
void run_grid(
    Index blocks,
    Index threads,
    size_t shared_bytes,
    const std::function<void()>& thread);

// The rest is for a thread to call.
void fail(const char* reason);
void wait_for_block();
void wait_for_warp();

// Shared memory by who asks: the same in all threads of a block. `key` tells
// apart what differs in type.
void* shared_memory(const void* key, size_t bytes);
void* launch_memory(); // the shared_bytes of run_grid

void copy_async(void* to, const void* from, size_t bytes, bool exists);
void commit_copies();
void wait_for_copies(size_t groups_that_may_remain);

constexpr int kLanes = 32;
constexpr size_t kMailBytes = 64;
int lane();
std::array<std::byte, kMailBytes>& mail(int lane); // of the thread's warp

// What every lane of the warp has given.
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
