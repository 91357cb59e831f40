#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <thread>

#include "io/error.h"
#include "text/dataset.h"

namespace merganser {
namespace {

// Examples a thread takes at least: below, starting it costs more than it
// gives.
constexpr int64_t kExamplesPerThread = 500;

void tokenize(
    const std::vector<TextExample>& examples,
    const Tokenizer& tokenizer,
    int64_t max_length,
    int64_t begin,
    int64_t end,
    Dataset& data) {
  for (int64_t i = begin; i < end; ++i) {
    data.ids[i] = tokenizer.encode(examples[i].text, max_length);
  }
}

} // namespace

Dataset load_dataset(
    const std::filesystem::path& path,
    const Tokenizer& tokenizer,
    int64_t max_length,
    int64_t num_labels) {
  const std::vector<TextExample> examples = read_examples(path);
  Dataset data;
  data.path = path;
  data.ids.resize(examples.size());
  for (const TextExample& example : examples) {
    if (example.label >= num_labels) {
      throw InputError(fmt::format(
          "{}:{}: label {} is out of range; the model has {} labels, from 0",
          path.string(),
          example.line,
          example.label,
          num_labels));
    }
    data.labels.push_back(example.label);
  }

  const int64_t size = data.size();
  const int64_t threads = std::clamp<int64_t>(
      size / kExamplesPerThread,
      1,
      std::max(1u, std::thread::hardware_concurrency()));
  std::vector<std::exception_ptr> errors(threads);
  std::vector<std::thread> workers;
  for (int64_t t = 0; t < threads; ++t) {
    workers.emplace_back([&, t] {
      try {
        tokenize(
            examples,
            tokenizer,
            max_length,
            size * t / threads,
            size * (t + 1) / threads,
            data);
      } catch (...) {
        errors[t] = std::current_exception();
      }
    });
  }
  for (std::thread& worker : workers) {
    worker.join();
  }
  for (const std::exception_ptr& error : errors) {
    if (error) {
      std::rethrow_exception(error);
    }
  }
  return data;
}

} // namespace merganser
