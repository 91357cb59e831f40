#pragma once

#include <type_traits>

// Runs a loop with the widest vectors of the current machine: the binary is
// compiled for any x86-64; this also compiles the loop for AVX2 and AVX-512 and
// selects one at run time. The results do not depend on the choice: vectors of
// any width round each element in the same way.
//
//   widest([&] { for (...) out[i] = f(in[i]); });
//
// A loop with an argument receives the width, as VectorBytes<N>().
// (GCC's target_clones would do the same, but not for templates.)

namespace merganser {

template <int N>
using VectorBytes = std::integral_constant<int, N>;

template <int N, typename Loop>
[[gnu::always_inline]] inline void run_loop(const Loop& loop) {
  if constexpr (std::is_invocable_v<Loop>) {
    loop();
  } else {
    loop(VectorBytes<N>());
  }
}

#if defined(__x86_64__)
template <typename Loop>
[[gnu::flatten, gnu::target("arch=x86-64-v4")]] void run_avx512(
    const Loop& loop) {
  run_loop<64>(loop);
}

template <typename Loop>
[[gnu::flatten, gnu::target("arch=x86-64-v3")]] void run_avx2(
    const Loop& loop) {
  run_loop<32>(loop);
}

template <typename Loop>
void widest(const Loop& loop) {
  if (__builtin_cpu_supports("x86-64-v4")) {
    run_avx512(loop);
  } else if (__builtin_cpu_supports("x86-64-v3")) {
    run_avx2(loop);
  } else {
    run_loop<16>(loop);
  }
}
#else
template <typename Loop>
void widest(const Loop& loop) {
  run_loop<16>(loop);
}
#endif

} // namespace merganser
