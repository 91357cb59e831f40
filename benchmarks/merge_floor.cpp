// The cost of a merge without merging: the same files read and as many bytes
// written, by the same number of threads, with nothing computed.
//
//   merge_floor THREADS CHUNK OUT BYTES FILE...
//
// Every thread takes the next part, reads that part of each file, CHUNK bytes
// at a time, and writes its share of the BYTES of OUT, which is then flushed to
// disk as merganser flushes it. Prints the seconds for reading and writing and
// those for flushing.

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

namespace {

struct File {
  int fd;
  uint64_t size;
};

void check(bool good, const char* what) {
  if (!good) {
    std::perror(what);
    std::exit(1);
  }
}

} // namespace

int main(int argc, char** argv) {
  if (argc < 6) {
    std::fprintf(stderr, "merge_floor THREADS CHUNK OUT BYTES FILE...\n");
    return 2;
  }
  const auto start = std::chrono::steady_clock::now();
  const int threads = std::atoi(argv[1]);
  const uint64_t chunk = std::strtoull(argv[2], nullptr, 10);
  const uint64_t written = std::strtoull(argv[4], nullptr, 10);
  std::vector<File> files;
  uint64_t longest = 0;
  for (int i = 5; i < argc; ++i) {
    const int fd = open(argv[i], O_RDONLY);
    check(fd >= 0, argv[i]);
    files.push_back({fd, static_cast<uint64_t>(lseek(fd, 0, SEEK_END))});
    longest = std::max(longest, files.back().size);
  }
  const int out = open(argv[3], O_RDWR | O_CREAT | O_TRUNC, 0666);
  check(out >= 0, argv[3]);
  check(fallocate(out, 0, 0, static_cast<off_t>(written)) == 0, argv[3]);

  const uint64_t parts = (longest + chunk - 1) / chunk;
  std::atomic<uint64_t> next = 0;
  const auto work = [&] {
    std::vector<std::vector<char>> buffers(files.size());
    for (auto& buffer : buffers) {
      buffer.resize(chunk);
    }
    for (uint64_t i = next++; i < parts; i = next++) {
      // Part i of each file, in proportion to its size.
      const auto cut = [&](uint64_t size, uint64_t k) {
        return static_cast<uint64_t>(
            static_cast<unsigned __int128>(size) * k / parts);
      };
      for (size_t f = 0; f < files.size(); ++f) {
        const uint64_t begin = cut(files[f].size, i);
        const uint64_t size = cut(files[f].size, i + 1) - begin;
        check(
            pread(files[f].fd, buffers[f].data(), size, begin) ==
                static_cast<ssize_t>(size),
            "pread");
      }
      // More than one buffer if the inputs have several files.
      const uint64_t end = cut(written, i + 1);
      for (uint64_t at = cut(written, i); at < end;) {
        const uint64_t size = std::min(chunk, end - at);
        check(
            pwrite(out, buffers[0].data(), size, at) ==
                static_cast<ssize_t>(size),
            "pwrite");
        at += size;
      }
    }
  };
  {
    std::vector<std::jthread> helpers;
    for (int t = 1; t < threads; ++t) {
      helpers.emplace_back(work);
    }
    work();
  }
  const auto moved = std::chrono::steady_clock::now();
  check(fsync(out) == 0, "fsync");
  const auto end = std::chrono::steady_clock::now();
  const auto seconds = [](auto duration) {
    return std::chrono::duration<double>(duration).count();
  };
  std::printf("%.4f %.4f\n", seconds(moved - start), seconds(end - moved));
}
