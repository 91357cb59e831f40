// fine_tune_and_merge BASE OUT DATA...: fine-tunes an expert from the model
// BASE on each DATA after the first, which are BASE's own, merges the experts
// by gradient_matching with Fishers of all models, and prints accuracies. DATA
// are directories with train.jsonl and test.jsonl.

#include <cstdio>
#include <sstream>
#include <vector>

#include "merganser/base/error.h"
#include "merganser/engine/execute.h"
#include "merganser/eval/evaluate.h"
#include "merganser/fisher/fisher.h"
#include "merganser/io/checkpoint.h"
#include "merganser/model/classifier.h"
#include "merganser/train/trainer.h"

namespace fs = std::filesystem;
constexpr int64_t kMaxLength = 64;

struct Task {
  fs::path data, model, fisher;
};

void estimate(const Task& task) {
  merganser::Classifier model(task.model);
  const auto data = model.load(task.data / "train.jsonl", kMaxLength);
  const int32_t pad_id = model.tokenizer->pad_id();
  auto fisher = estimate_fisher(model.encoder, data, pad_id, {.limit = 600});
  fisher.model_hash = merganser::Checkpoint(task.model).content_hash();
  fisher.save(task.fisher);
}

void evaluate(const fs::path& folder, const std::vector<Task>& tasks) {
  merganser::Classifier model(folder);
  for (const Task& task : tasks) {
    const auto data = model.load(task.data / "test.jsonl", kMaxLength);
    const int32_t pad_id = model.tokenizer->pad_id();
    const auto found = evaluate(model.encoder, data, pad_id, 32, false);
    std::printf("%.4f  %s  ", found.accuracy, folder.c_str());
    std::puts(task.data.c_str());
  }
}

int main(int argc, char** argv) try {
  if (argc < 5) {
    throw merganser::InputError("usage: fine_tune_and_merge BASE OUT DATA...");
  }
  const fs::path base = fs::absolute(argv[1]);
  const fs::path out = fs::absolute(argv[2]);
  std::vector<Task> tasks = {{argv[3], base, out / "base.safetensors"}};
  std::ostringstream recipe; // relative paths start at `out`
  recipe << "{merge_method: gradient_matching, base_model: " << base
         << ", base_fisher: base.safetensors, models: [";
  fs::create_directories(out);
  estimate(tasks[0]);
  for (int i = 4; i < argc; ++i) {
    const std::string name = "expert" + std::to_string(i - 3);
    tasks.push_back({argv[i], out / name, out / (name + ".safetensors")});
    merganser::train(
        {.model = base,
         .train = {tasks.back().data / "train.jsonl"},
         .out = tasks.back().model,
         .epochs = 2,
         .max_length = kMaxLength});
    estimate(tasks.back());
    recipe << "{model: " << name << ", fisher: " << name << ".safetensors},";
  }
  recipe << "], parameters: {weight: 0.5}}";
  const auto parsed = merganser::Recipe::parse(recipe.str(), out, "recipe");
  execute_merge(make_plan(parsed), out / "merged");
  for (const Task& task : tasks) {
    evaluate(task.model, tasks);
  }
  evaluate(out / "merged", tasks);
} catch (const std::exception& error) {
  std::fprintf(stderr, "fine_tune_and_merge: %s\n", error.what());
  return 1;
}
