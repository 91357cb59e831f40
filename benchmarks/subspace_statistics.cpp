// The cost of a subspace step's statistics, as a multiple of one forward and
// backward pass over the same examples.
//
//   cmake --build --preset cpu --target subspace_statistics
//   build/cpu/bin/subspace_statistics out/snippets data/snippets [DTYPE]
//
// The demo's three tasks, and these with a fourth, joint training on the base's
// data; 200 examples each, groups `block`. Contestants take turns; prints
// medians of seconds and of the rounds' ratios.

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "merganser/objective/groups.h"
#include "merganser/objective/joint_objective.h"
#include "merganser/objective/subspace.h"

namespace {

namespace fs = std::filesystem;

constexpr int kRounds = 7;

template <typename Function>
double seconds(const Function& function) {
  const auto start = std::chrono::steady_clock::now();
  function();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
      .count();
}

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

merganser::ObjectiveOptions read_options(
    const fs::path& out,
    const fs::path& data,
    size_t tasks,
    bool bfloat16) {
  constexpr std::pair<const char*, const char*> kTasks[] = {
      {"amazon", "amazon"},
      {"nyt", "nyt"},
      {"tweets", "tweets"},
      {"target", "movie"}};
  merganser::ObjectiveOptions options;
  options.base = out / "models" / "base";
  for (size_t t = 0; t < tasks; ++t) {
    const auto& [expert, name] = kTasks[t];
    options.tasks.push_back(
        {.expert = out / "models" / expert,
         .data = data / name / "train.jsonl",
         .fisher = {}});
  }
  options.limit = 200;
  options.max_length = 64;
  options.bfloat16 = bfloat16;
  return options;
}

void measure(const merganser::ObjectiveOptions& options) {
  merganser::JointObjective joint(options);
  merganser::Subspace subspace{
      .task_vectors = {},
      .groups = make_groups(joint.arena(), merganser::Grouping::kBlock)};
  for (size_t t = 0; t < joint.tasks().size(); ++t) {
    subspace.task_vectors.push_back(
        joint.read_expert(t).sub_(joint.arena().parameters));
  }
  const auto for_tasks = [&](const auto& use) {
    for (size_t t = 0; t < joint.tasks().size(); ++t) {
      use(t, joint.tasks()[t].examples);
    }
  };
  const auto passes = [&] {
    for_tasks([&](size_t t, const auto& examples) {
      joint.add_gradient(t, examples);
    });
  };
  const auto statistics = [&] {
    for_tasks([&](size_t t, const auto& examples) {
      subspace_statistics(joint, subspace, t, examples);
    });
  };
  passes();
  statistics();
  std::vector<double> plain;
  std::vector<double> own;
  std::vector<double> ratios;
  for (int round = 0; round < kRounds; ++round) {
    plain.push_back(seconds(passes));
    own.push_back(seconds(statistics));
    ratios.push_back(own.back() / plain.back());
  }
  fmt::print(
      "{} tasks: forward and backward {:.2f} s, statistics {:.2f} s, ratio "
      "{:.2f}\n",
      joint.tasks().size(),
      median(plain),
      median(own),
      median(ratios));
}

} // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    fmt::print(stderr, "subspace_statistics OUT DATA [float32|bfloat16]\n");
    return 2;
  }
  const bool bfloat16 = argc > 3 && std::string(argv[3]) == "bfloat16";
  for (const size_t tasks : {3, 4}) {
    measure(read_options(argv[1], argv[2], tasks, bfloat16));
  }
}
