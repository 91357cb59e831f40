#include "emulator.h"

#include <ucontext.h>

#include <cstdlib>
#include <deque>
#include <exception>
#include <map>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

namespace emulator {
namespace {

constexpr size_t kStackBytes = 256 * 1024;
constexpr int kNan = 0xff; // in every byte: a NaN of any type

struct Barrier {
  size_t members = 0;
  size_t arrived = 0;
  uint64_t passed = 0;
};

struct Copy {
  void* to;
  const void* from;
  size_t bytes;
};

struct Thread {
  ucontext_t context;
  std::unique_ptr<std::byte[]> stack{new std::byte[kStackBytes]};
  Index index;
  const Barrier* waits_at;
  uint64_t passed; // the barrier's value when this thread arrived
  bool done;
  std::vector<Copy> copies; // not committed
  std::deque<std::vector<Copy>> groups;
};

struct Memory {
  std::unique_ptr<std::byte[]> bytes;

  explicit Memory(size_t size) : bytes(new std::byte[size]) {
    std::memset(bytes.get(), kNan, size);
  }
};

struct Warp {
  Barrier barrier;
  std::array<std::array<std::byte, kMailBytes>, kLanes> mail;
};

struct Block {
  Barrier barrier;
  std::vector<Warp> warps;
  std::map<const void*, Memory> shared;
  std::unique_ptr<Memory> launch_memory;
};

ucontext_t scheduler;
std::vector<std::unique_ptr<Thread>> threads; // reused for every block
Block block;
size_t current; // index of the running thread
const std::function<void()>* work;
std::exception_ptr failure;

void run_thread() {
  (*work)();
  threads[current]->done = true;
}

void wait_at(Barrier& barrier) {
  Thread& self = *threads[current];
  self.waits_at = &barrier;
  self.passed = barrier.passed;
  if (++barrier.arrived == barrier.members) {
    barrier.arrived = 0;
    ++barrier.passed;
  }
  swapcontext(&self.context, &scheduler);
}

void start_thread(Thread& thread, Index index) {
  thread.index = index;
  thread.waits_at = nullptr;
  thread.done = false;
  thread.copies.clear();
  thread.groups.clear();
  getcontext(&thread.context);
  thread.context.uc_stack.ss_sp = thread.stack.get();
  thread.context.uc_stack.ss_size = kStackBytes;
  thread.context.uc_link = &scheduler;
  makecontext(&thread.context, &run_thread, 0);
}

void start_block(size_t shared_bytes) {
  const size_t count = size_t{block_size.x} * block_size.y * block_size.z;
  while (threads.size() < count) {
    threads.push_back(std::make_unique<Thread>());
  }
  block = Block{};
  block.barrier.members = count;
  block.warps.resize((count + kLanes - 1) / kLanes);
  block.launch_memory = std::make_unique<Memory>(shared_bytes);
  for (size_t i = 0; i < count; ++i) {
    const auto k = static_cast<unsigned>(i);
    start_thread(
        *threads[i],
        {k % block_size.x,
         k / block_size.x % block_size.y,
         k / block_size.x / block_size.y});
    ++block.warps[i / kLanes].barrier.members;
  }
}

void run_block(size_t shared_bytes) {
  start_block(shared_bytes);
  const size_t count = block.barrier.members;
  for (size_t running = count; running > 0;) {
    bool moved = false;
    for (size_t i = 0; i < count; ++i) {
      current = order == Order::kAscending ? i : count - 1 - i;
      Thread& thread = *threads[current];
      const bool waits =
          thread.waits_at && thread.waits_at->passed == thread.passed;
      if (thread.done || waits) {
        continue;
      }
      thread_index = thread.index;
      swapcontext(&scheduler, &thread.context);
      if (failure) {
        std::rethrow_exception(std::exchange(failure, nullptr));
      }
      running -= thread.done;
      moved = true;
    }
    if (!moved) {
      throw std::runtime_error(
          "threads wait for others that have ended or wait");
    }
  }
}

} // namespace

void run_grid(
    Index blocks,
    Index block_threads,
    size_t shared_bytes,
    const std::function<void()>& thread) {
  work = &thread;
  grid_size = blocks;
  block_size = block_threads;
  for (unsigned z = 0; z < blocks.z; ++z) {
    for (unsigned y = 0; y < blocks.y; ++y) {
      for (unsigned x = 0; x < blocks.x; ++x) {
        block_index = {x, y, z};
        run_block(shared_bytes);
      }
    }
  }
}

void fail(const char* reason) {
  failure = std::make_exception_ptr(std::runtime_error(reason));
  swapcontext(&threads[current]->context, &scheduler);
  std::abort(); // a thread that failed never resumes
}

void wait_for_block() {
  wait_at(block.barrier);
}

void wait_for_warp() {
  wait_at(block.warps[current / kLanes].barrier);
}

void* shared_memory(const void* key, size_t bytes) {
  return block.shared.try_emplace(key, bytes).first->second.bytes.get();
}

void* launch_memory() {
  return block.launch_memory->bytes.get();
}

void copy_async(void* to, const void* from, size_t bytes, bool exists) {
  if (reinterpret_cast<uintptr_t>(to) % bytes != 0 ||
      reinterpret_cast<uintptr_t>(from) % bytes != 0) {
    fail("an asynchronous copy is not aligned");
  }
  std::memset(to, kNan, bytes);
  threads[current]->copies.push_back({to, exists ? from : nullptr, bytes});
}

void commit_copies() {
  Thread& self = *threads[current];
  self.groups.push_back(std::exchange(self.copies, {}));
}

void wait_for_copies(size_t groups_that_may_remain) {
  auto& groups = threads[current]->groups;
  for (; groups.size() > groups_that_may_remain; groups.pop_front()) {
    for (const Copy& copy : groups.front()) {
      if (copy.from) {
        std::memcpy(copy.to, copy.from, copy.bytes);
      } else {
        std::memset(copy.to, 0, copy.bytes);
      }
    }
  }
}

int lane() {
  return static_cast<int>(current % kLanes);
}

std::array<std::byte, kMailBytes>& mail(int lane) {
  return block.warps[current / kLanes].mail[lane];
}

} // namespace emulator
