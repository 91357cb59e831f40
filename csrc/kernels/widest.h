#pragma once

// Runs a loop with the widest vectors of the machine at hand: the binary is
// compiled for any x86-64, and this compiles the loop once more for AVX2 and
// for AVX-512 and picks one when it runs. The results do not depend on the
// choice: vectors of another width round each element in the same way.
//
//   widest([&] { for (...) out[i] = f(in[i]); });
//
// (GCC's target_clones would do the same, but not for templates.)

namespace merganser {

#if defined(__x86_64__)
template <typename Loop>
[[gnu::flatten, gnu::target("arch=x86-64-v4")]] void run_avx512(
    const Loop& loop) {
  loop();
}

template <typename Loop>
[[gnu::flatten, gnu::target("arch=x86-64-v3")]] void run_avx2(
    const Loop& loop) {
  loop();
}

template <typename Loop>
void widest(const Loop& loop) {
  if (__builtin_cpu_supports("x86-64-v4")) {
    run_avx512(loop);
  } else if (__builtin_cpu_supports("x86-64-v3")) {
    run_avx2(loop);
  } else {
    loop();
  }
}
#else
template <typename Loop>
void widest(const Loop& loop) {
  loop();
}
#endif

} // namespace merganser
