// Contents of plans, and every input that they refuse.

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "merganser/base/error.h"
#include "merganser/engine/buffer_memory.h"
#include "merganser/plan/plan_text.h"
#include "merganser/plan/planner.h"
#include "support/model_files.h"
#include "support/temporary_folder.h"

namespace merganser::test {
namespace {

class Plan : public ::testing::Test {
 protected:
  // Writes a base and two models with Fishers that can be merged.
  Plan() {
    for (const char* name : {"base", "a", "b"}) {
      write_model(folder_ / name, tensors_);
      write_text(folder_ / name / "vocab.txt", "[PAD]\nhello\n");
      fisher(name, fishers_);
    }
  }

  void fisher(const std::string& name, const std::vector<TestTensor>& tensors) {
    write_fisher(
        folder_ / (name + "_fisher.safetensors"), tensors, folder_ / name, 50);
  }

  MergePlan plan(const std::string& more = "") const {
    return make_plan(
        Recipe::parse(recipe_ + more, folder_.path(), "recipe.yaml"));
  }

  // Returns the problems of a plan.
  std::string problems(const std::string& more = "") const {
    try {
      plan(more);
    } catch (const InputError& error) {
      return error.what();
    }
    return "nothing";
  }

  void expect_problem(
      std::initializer_list<std::string> words,
      const std::string& more = "") const {
    const std::string found = problems(more);
    for (const std::string& word : words) {
      EXPECT_NE(found.find(word), std::string::npos)
          << "'" << word << "' is not in: " << found;
    }
  }

  std::string path(const std::string& name) const {
    return (folder_ / name).string();
  }

  TemporaryFolder folder_;
  std::vector<TestTensor> tensors_ = {
      floats("w", {1, 2, 3}),
      floats("classifier.weight", {4, 5}),
      integers("position_ids", {0, 1})};
  std::vector<TestTensor> fishers_ = {
      floats("w", {1, 1, 1}),
      floats("classifier.weight", {1, 1})};
  std::string recipe_ = R"(
merge_method: gradient_matching
base_model: base
base_fisher: base_fisher.safetensors
models:
  - {model: a, fisher: a_fisher.safetensors}
  - {model: b, fisher: b_fisher.safetensors, num_examples: 70}
)";
};

TEST_F(Plan, SaysWhatHappensToEveryTensor) {
  const MergePlan plan = this->plan("out_dtype: bfloat16\n");
  ASSERT_EQ(plan.tensors.size(), 3u);
  EXPECT_EQ(plan.tensors[0].output.name, "w");
  EXPECT_EQ(plan.tensors[0].output.dtype, DType::kBF16);
  EXPECT_EQ(plan.tensors[0].action, TensorAction::kMerge);
  EXPECT_EQ(plan.tensors[0].bytes_read, 6u * 3 * 4); // 3 models, 3 Fishers
  EXPECT_EQ(plan.tensors[2].action, TensorAction::kCopy);
  EXPECT_EQ(plan.tensors[2].output.dtype, DType::kI64);
  EXPECT_EQ(plan.bytes_read, 6u * 5 * 4 + 16);
  EXPECT_EQ(plan.bytes_written, 5u * 2 + 16);
  EXPECT_EQ(plan.base_num_examples, 50);
  EXPECT_EQ(plan.slices[0].models[0].num_examples, 50);
  EXPECT_EQ(plan.slices[0].models[1].num_examples, 70);
  EXPECT_TRUE(plan.notes.empty());

  const auto json =
      nlohmann::json::parse(plan_json(plan, buffer_memory(plan, 0)));
  EXPECT_EQ(json["tensors"][0]["name"], "w");
  EXPECT_EQ(json["tensors"][0]["dtype"], "BF16");
  EXPECT_EQ(json["tensors"][2]["action"], "copy");
  EXPECT_EQ(json["models"][1]["num_examples"], 70);
  const std::string text = plan_text(plan, buffer_memory(plan, 0));
  for (const char* word : {"gradient_matching", "position_ids", "70"}) {
    EXPECT_NE(text.find(word), std::string::npos) << text;
  }
}

TEST_F(Plan, KeepsHeads) {
  // Heads of other sizes, without Fishers: neither is merged.
  write_model(
      folder_ / "a",
      {tensors_[0], floats("classifier.weight", {7, 8, 9}), tensors_[2]});
  for (const char* name : {"base", "a", "b"}) {
    fisher(name, {fishers_[0]});
  }
  EXPECT_EQ(problems("heads: base\n"), "nothing");
  const MergePlan plan = this->plan("heads: per_task\n");
  EXPECT_EQ(plan.tensors[1].output.name, "classifier.weight");
  EXPECT_EQ(plan.tensors[1].action, TensorAction::kCopy);
  ASSERT_EQ(plan.heads.size(), 2u);
  EXPECT_EQ(plan.heads[0].file, "heads/a.safetensors");
  EXPECT_EQ(plan.heads[0].tensors[0].shape, (std::vector<int64_t>{3}));
  expect_problem({"classifier.weight"}, "heads: merge\n");
}

TEST_F(Plan, NotesWhatTheMethodDoesNotUse) {
  recipe_.replace(recipe_.find("gradient_matching"), 17, "task_arithmetic");
  const auto notes = plan().notes;
  ASSERT_EQ(notes.size(), 3u);
  EXPECT_EQ(notes[0], "task_arithmetic does not use base_fisher");
}

TEST_F(Plan, NotesWhatTheIndexLeavesOut) {
  std::filesystem::rename(
      folder_ / "a" / "model.safetensors", folder_ / "a" / "x.safetensors");
  write_tensors(
      folder_ / "a" / "y.safetensors",
      {floats("w", {0, 0, 0}), floats("v", {1})});
  write_text(
      folder_ / "a" / "model.safetensors.index.json",
      R"({"weight_map": {"w": "x.safetensors", "v": "y.safetensors",
          "classifier.weight": "x.safetensors",
          "position_ids": "x.safetensors"}})");
  expect_problem({"'v'"}); // of the index, but not of the base
  write_tensors(folder_ / "a" / "y.safetensors", {floats("w", {0, 0, 0})});
  write_text(
      folder_ / "a" / "model.safetensors.index.json",
      R"({"weight_map": {"w": "x.safetensors",
          "classifier.weight": "x.safetensors"}})");
  write_model(folder_ / "base", {tensors_[0], tensors_[1]});
  write_model(folder_ / "b", {tensors_[0], tensors_[1]});
  for (const char* name : {"base", "a", "b"}) {
    fisher(name, fishers_);
  }
  const auto notes = plan().notes;
  ASSERT_EQ(notes.size(), 1u);
  EXPECT_EQ(
      notes[0],
      path("a") +
          ": leaves out what the index does not name: 'position_ids' in "
          "x.safetensors");
}

// Models of a base without a head, whose adapters store one (modules_to_save).
class PlanOfAdapters : public Plan {
 protected:
  PlanOfAdapters() {
    write_model(folder_ / "base", {tensors_[0]});
    adapter("x", {classifier({1, 2})});
    adapter("y", {classifier({3, 4})});
    recipe_ = R"(
merge_method: linear
models:
  - {model: base, adapter: x}
  - {model: base, adapter: y}
)";
  }

  // (1, 1)
  static TestTensor matrix(const std::string& name) {
    TestTensor tensor = floats(name, {1});
    tensor.info.shape = {1, 1};
    return tensor;
  }

  static TestTensor classifier(const std::vector<double>& values) {
    return floats("base_model.model.classifier.weight", values);
  }

  void adapter(const std::string& name, const std::vector<TestTensor>& tensors)
      const {
    std::filesystem::create_directories(folder_ / name);
    write_text(
        folder_ / name / "adapter_config.json",
        R"({"peft_type": "LORA", "r": 1, "lora_alpha": 1})");
    write_tensors(folder_ / name / "adapter_model.safetensors", tensors);
  }
};

TEST_F(PlanOfAdapters, TakesTensorsThatTheModelLacks) {
  const MergePlan found = plan();
  ASSERT_EQ(found.tensors.size(), 2u);
  const TensorPlan& head = found.tensors[1];
  EXPECT_EQ(head.output, tensors_[1].info);
  ASSERT_EQ(head.sources.size(), 2u);
  EXPECT_EQ(
      head.sources[0].tensor.file(), folder_ / "x/adapter_model.safetensors");
  EXPECT_EQ(
      head.sources[1].tensor.file(), folder_ / "y/adapter_model.safetensors");
  ASSERT_EQ(found.notes.size(), 2u);
  EXPECT_EQ(
      found.notes[0],
      "adapter " + path("x") + " has tensors that its model " + path("base") +
          " lacks: 'classifier.weight'; config.json does not change with them");
}

TEST_F(PlanOfAdapters, RefusesTensorsThatOthersLack) {
  expect_problem(
      {path("x") + " has tensors that " + path("base") +
           " lacks: 'classifier.weight'",
       path("y") + " has tensors"},
      "base_model: base\n");
  write_model(folder_ / "a", {tensors_[0]});
  expect_problem(
      {path("x") + " has tensors that " + path("a") +
       " lacks: 'classifier.weight'"},
      "  - model: a\n");
  // One that is not stored whole.
  adapter(
      "x",
      {classifier({1, 2}),
       matrix("base_model.model.score.lora_A.weight"),
       matrix("base_model.model.score.lora_B.weight")});
  expect_problem(
      {"adapter " + path("x") + " targets tensor 'score.weight', which " +
       path("base") + " does not have"});
}

// The names of a model and of its adapter differ by a prefix: the shapes decide
// all the same that the weight is transposed.
TEST_F(PlanOfAdapters, OrientsUpdatesUnderOtherNames) {
  TestTensor weight = floats("h.0.mlp.weight", {1, 2});
  weight.info.shape = {1, 2};
  TestTensor b =
      floats("base_model.model.transformer.h.0.mlp.lora_B.weight", {3, 4});
  b.info.shape = {2, 1};
  write_model(folder_ / "base", {weight});
  adapter(
      "x", {matrix("base_model.model.transformer.h.0.mlp.lora_A.weight"), b});
  recipe_ = "merge_method: passthrough\nmodels: [{model: base, adapter: x}]";
  const MergePlan found = plan();
  ASSERT_EQ(found.tensors.size(), 1u);
  ASSERT_NE(found.tensors[0].sources.at(0).update, nullptr);
  EXPECT_TRUE(found.tensors[0].sources[0].update->transposed);
}

// The head files have the adapters' heads.
TEST_F(PlanOfAdapters, PutsHeadsIntoTheirFiles) {
  std::filesystem::create_directory_symlink(
      folder_ / "base", folder_ / "other");
  recipe_.replace(recipe_.rfind("model: base"), 11, "model: other");
  const std::string heads = "base_model: base\nheads: per_task\n";
  const MergePlan found = plan(heads);
  EXPECT_EQ(found.tensors.size(), 1u);
  ASSERT_EQ(found.heads.size(), 2u);
  for (const TaskHead& head : found.heads) {
    EXPECT_EQ(head.tensors, std::vector{tensors_[1].info});
    const bool first = head.file == "heads/base.safetensors";
    EXPECT_EQ(
        head.sources.at(0).file(),
        folder_ / (first ? "x" : "y") / "adapter_model.safetensors");
  }
  // A replaced head, and one that is updated.
  for (const char* name : {"base", "a"}) {
    write_model(
        folder_ / name, {tensors_[0], tensors_[1], matrix("score.weight")});
  }
  EXPECT_EQ(
      plan(heads).heads[0].sources.at(0).file().filename(),
      "adapter_model.safetensors");
  adapter(
      "x",
      {matrix("base_model.model.score.lora_A.weight"),
       matrix("base_model.model.score.lora_B.weight")});
  expect_problem(
      {"heads: per_task copies heads",
       path("x") + " updates tensor 'score.weight'"},
      heads);
}

// A hash that is missing and one that is empty are both unknown.
TEST_F(Plan, NotesFishersThatItCannotCheck) {
  const std::string file = path("a_fisher.safetensors");
  const Metadata known = Checkpoint(file).metadata();
  for (bool missing : {false, true}) {
    Metadata metadata = known;
    metadata["base_model_hash"] = "";
    if (missing) {
      metadata.erase("base_model_hash");
    }
    write_tensors(file, fishers_, metadata);
    EXPECT_EQ(
        plan().notes,
        (std::vector<std::string>{
            file + " is not checked against the weights of " + path("a") +
            ": its metadata name no base_model_hash"}));
  }
}

TEST_F(Plan, NotesWhatIsReadBefore) {
  EXPECT_TRUE(plan().notes.empty());
  const auto normalized = plan("parameters: {normalize_fishers: true}\n").notes;
  ASSERT_EQ(normalized.size(), 1u);
  EXPECT_EQ(
      normalized[0],
      "normalize_fishers reads all Fishers once more, before the merge");
  recipe_.replace(recipe_.find("gradient_matching"), 17, "ties");
  EXPECT_EQ(
      plan().notes.back(),
      "ties reads each tensor several times: it measures the whole tensor "
      "before it merges it");
}

TEST_F(Plan, NotesFishersOfDifferentEstimators) {
  const std::string file = path("b_fisher.safetensors");
  Metadata metadata = Checkpoint(file).metadata();
  const auto notes_with = [&](const char* estimator) {
    metadata["estimator"] = estimator;
    write_tensors(file, fishers_, metadata);
    return plan().notes;
  };
  // Unbiased as `exact` is.
  EXPECT_TRUE(notes_with("mc").empty());
  EXPECT_TRUE(notes_with("mc_batch").empty());
  const std::string note =
      "the Fishers come from different estimators (adam, exact), whose scales "
      "differ; use one";
  EXPECT_EQ(
      notes_with("adam"),
      std::vector<std::string>{note + ", or normalize_fishers"});
  recipe_.replace(recipe_.find("gradient_matching"), 17, "ewr");
  const auto notes = plan("parameters: {weight: 0.1}\n").notes;
  EXPECT_TRUE(std::ranges::find(notes, note) != notes.end());
}

TEST_F(Plan, AveragesWhatNoFisherCovers) {
  write_model(
      folder_ / "a",
      {tensors_[0], floats("classifier.weight", {4, 6}), tensors_[2]});
  for (const char* name : {"base", "a", "b"}) {
    fisher(name, {fishers_[0]});
  }
  const MergePlan plan = this->plan();
  EXPECT_EQ(plan.tensors[0].reason, "");
  EXPECT_EQ(plan.tensors[1].output.name, "classifier.weight");
  EXPECT_EQ(plan.tensors[1].reason, "average by weight, without a Fisher");
  EXPECT_EQ(
      plan.tensors[1].parameters[0].weights, (std::vector<double>{0.5, 0.5}));
  EXPECT_NE(
      plan.notes.at(0).find("no Fisher has these tensors"), std::string::npos);
  const MergePlan kept =
      this->plan("parameters: {average_buffers: false, weight: 0.3}\n");
  EXPECT_EQ(kept.tensors[1].reason, "the base's, without a Fisher");
  EXPECT_EQ(kept.tensors[1].parameters[0].weights, (std::vector<double>{0, 0}));
  fisher("b", fishers_);
  expect_problem({"base_fisher.safetensors has no Fisher for"});
}

TEST_F(Plan, EwrNeedsAWeight) {
  recipe_.replace(recipe_.find("gradient_matching"), 17, "ewr");
  expect_problem({"the method ewr needs the parameter weight of every model"});
  const auto notes = plan("parameters: {weight: 0.1}\n").notes;
  EXPECT_NE(notes.back().find("floor to it: 0 % of "), std::string::npos);
}

TEST_F(Plan, EwrSaysWhichShareOfSampledFishersIsBelowTheFloor) {
  // 8,000 of 30,000 values of each: runs of 512 at multiples of 3,750.
  std::vector<double> values(30'000, 1e-3);
  std::fill(values.begin(), values.begin() + 8'000, 1e-7);
  for (const char* name : {"base", "a", "b"}) {
    write_model(folder_ / name, {floats("w", values)});
    fisher(name, {floats("w", values)});
  }
  recipe_.replace(recipe_.find("gradient_matching"), 17, "ewr");
  const auto notes = plan("parameters: {weight: 0.1}\n").notes;
  EXPECT_NE(
      notes.back().find("floor to it: 37 % of 12288 sampled values"),
      std::string::npos)
      << notes.back();
}

TEST_F(Plan, NotesWhereTheBaseCannotContainTheRemovedData) {
  recipe_.replace(recipe_.find("gradient_matching"), 17, "removal");
  const auto notes = plan("base_num_examples: 119\n").notes;
  ASSERT_EQ(notes.size(), 1u);
  EXPECT_NE(
      notes[0].find("stands for 119 examples and those of the removed data for "
                    "120"),
      std::string::npos)
      << notes[0];
  const std::string enough = "base_num_examples: 120\n";
  EXPECT_TRUE(plan(enough).notes.empty());
  EXPECT_NE(
      plan(enough + "parameters: {normalize_fishers: true}\n")
          .notes.back()
          .find("gives all Fishers one mean"),
      std::string::npos);
}

TEST_F(Plan, ListsAllProblemsAtOnce) {
  write_model(folder_ / "a", {floats("v", {1}), floats("w", {1, 2})});
  write_model(folder_ / "b", tensors_, R"({"model_type": "roberta"})");
  write_tensors(folder_ / "b_fisher.safetensors", {fishers_[1]});
  const std::string found = problems();
  for (const char* words :
       {"recipe.yaml cannot be merged; found 8 problems:",
        "a_fisher.safetensors was estimated on other weights",
        "a lacks tensors of",
        "a has tensors that ",
        "/a differs from ",
        "b/config.json has model_type \"roberta\"",
        "a_fisher.safetensors is the Fisher of another model",
        "b_fisher.safetensors has no Fisher for tensors of"}) {
    EXPECT_NE(found.find(words), std::string::npos)
        << "'" << words << "' is not in: " << found;
  }
}

TEST_F(Plan, RefusesOtherAddedTokens) {
  write_text(folder_ / "a" / "added_tokens.json", R"({"<x>": 2})");
  write_text(folder_ / "base" / "added_tokens.json", R"({"<y>": 2})");
  expect_problem({path("a"), "added_tokens.json", "different vocabularies"});
}

TEST_F(Plan, RefusesOtherVocabulariesOfEveryKind) {
  for (const char* name : {"spm.model", "bpe.codes", "source.spm"}) {
    write_text(folder_ / "a" / name, "x");
    write_text(folder_ / "base" / name, "y");
    expect_problem({path("a"), name, "different vocabularies"});
    std::filesystem::remove(folder_ / "a" / name);
  }
}

TEST_F(Plan, RefusesOtherWeightsThatAreNoSafetensors) {
  for (const char* name : {"base", "a"}) {
    std::filesystem::create_directories(folder_ / name / "2_Dense");
    write_text(
        folder_ / name / "modules.json",
        R"([{"path": "", "type": "x.Transformer"},
            {"path": "2_Dense", "type": "x.Dense"}])");
    write_text(folder_ / name / "2_Dense" / "pytorch_model.bin", "x");
  }
  EXPECT_EQ(problems(), "nothing");
  write_text(folder_ / "a" / "2_Dense" / "pytorch_model.bin", "y");
  expect_problem(
      {path("a/2_Dense/pytorch_model.bin"), "save the module as safetensors"});
}

TEST_F(Plan, NotesFilesThatTheOutputDoesNotGet) {
  const auto write = [&](const char* file, const char* a, const char* base) {
    write_text(folder_ / "a" / file, a);
    write_text(folder_ / "base" / file, base);
  };
  for (const std::string file :
       {"preprocessor_config.json", "chat_template.json", "modeling_x.py"}) {
    write(file.c_str(), R"({"x": 1, "y": 2})", R"({"x": 1, "y": 2})");
    EXPECT_TRUE(plan().notes.empty()) << file;
    write(file.c_str(), R"({"x": 1, "y": 3})", R"({"x": 1, "y": 2})");
    EXPECT_EQ(
        plan().notes,
        std::vector<std::string>{
            path("a/" + file) + " differs from " + path("base/" + file) +
            ", which the output gets"});
    std::filesystem::remove(folder_ / "a" / file);
    std::filesystem::remove(folder_ / "base" / file);
  }
  // Another way of writing the same.
  write("chat_template.json", R"({"x": 1, "y": 2})", R"({"y":2,"x":1})");
  EXPECT_TRUE(plan().notes.empty());
}

TEST_F(Plan, NotesFilesThatTheOutputLacks) {
  for (const char* name :
       {"tokenizer.json", "chat_template.jinja", "special_tokens_map.json"}) {
    write_text(folder_ / "a" / name, "{}");
  }
  write_text(folder_ / "a" / "notes.md", "x"); // belongs to no tokenizer
  EXPECT_EQ(
      plan().notes,
      std::vector<std::string>{
          path("a") + " has files that " + path("base") +
          " lacks, so that the output lacks them: 'chat_template.jinja', "
          "'special_tokens_map.json', 'tokenizer.json'"});
}

TEST_F(Plan, NotesOtherSettings) {
  const auto write = [&](const char* file, const char* a, const char* base) {
    write_text(folder_ / "a" / file, a);
    write_text(folder_ / "base" / file, base);
  };
  const auto expect_note = [&](const std::string& file, const char* keys) {
    EXPECT_EQ(
        plan().notes,
        std::vector<std::string>{
            path("a/" + file) + " differs from " + path("base/" + file) +
            ", which the output gets, in " + keys});
    std::filesystem::remove(folder_ / "a" / file);
    std::filesystem::remove(folder_ / "base" / file);
  };
  const char* settings = "tokenizer_config.json";
  write(settings, R"({"do_lower_case": true})", R"({"do_lower_case": false})");
  expect_note(settings, "do_lower_case");
  write(settings, R"({"chat_template": "x"})", R"({"pad_token": "x"})");
  expect_note(settings, "chat_template");
  const char* tokens = "special_tokens_map.json";
  write(tokens, R"({"pad_token": {"content": "x"}})", R"({"pad_token": "y"})");
  expect_note(tokens, "pad_token");
  const char* generation = "generation_config.json";
  write(generation, R"({"eos_token_id": 1})", R"({"eos_token_id": 2})");
  expect_note(generation, "eos_token_id");
  write(
      generation,
      R"({"transformers_version": "4"})",
      R"({"transformers_version": "5"})");
  // Other ways of writing the same, and what only a version says.
  write(tokens, R"({"pad_token": {"content": "x"}})", R"({"pad_token": "x"})");
  write(settings, R"({"name_or_path": "a"})", R"({"name_or_path": "b"})");
  EXPECT_TRUE(plan().notes.empty());
}

TEST_F(Plan, NotesOtherValuesOfConfigurations) {
  write_model(folder_ / "base", tensors_, R"({"sliding_window": 4})");
  write_model(folder_ / "a", tensors_, R"({"sliding_window": 8})");
  for (const char* name : {"base", "a"}) {
    fisher(name, fishers_);
  }
  EXPECT_EQ(
      plan().notes,
      std::vector<std::string>{
          path("a/config.json") + " has sliding_window 8, but " +
          path("base/config.json") + ", which the output gets, has 4"});
}

TEST_F(Plan, NotesValuesThatOneConfigurationLacks) {
  const char* values = R"({"layer_norm_eps": 1e-05, "hidden_act": "relu"})";
  for (const bool by_base : {false, true}) {
    for (const char* name : {"base", "a", "b"}) {
      const bool has = (name != std::string("a")) == by_base;
      write_model(folder_ / name, tensors_, has ? values : "{}");
      fisher(name, fishers_);
    }
    const auto notes = plan().notes;
    ASSERT_EQ(notes.size(), 1u);
    const std::string a = path("a/config.json");
    const std::string base =
        path("base/config.json") + ", which the output gets,";
    EXPECT_EQ(
        notes[0],
        (by_base ? base : a) +
            R"( has hidden_act "relu", layer_norm_eps 1e-05, but )" +
            (by_base ? a : base) + " has the architecture's defaults");
  }
}

TEST_F(Plan, RefusesQuantizedModels) {
  for (const char* config :
       {R"({"quantization_config": {"quant_method": "gptq"}})",
        R"({"text_config": {"quantization_config": {"bits": 4}}})",
        R"({"compression_config": {}})",
        R"({"vision_config": {"encoder": {"quantization_config": {}}}})"}) {
    write_model(folder_ / "a", tensors_, config);
    expect_problem({path("a/config.json"), "quantized", "dequantize"});
  }
  write_model(folder_ / "a", tensors_, R"({"quantization_config": null})");
  EXPECT_EQ(problems(), "nothing");
  write_text(folder_ / "base" / "quantize_config.json", "{}");
  expect_problem({path("base"), "has quantize_config.json"});
}

TEST_F(Plan, RefusesMissingFiles) {
  std::filesystem::remove_all(folder_ / "a");
  std::filesystem::remove(folder_ / "b_fisher.safetensors");
  expect_problem({"2 problems", path("a"), path("b_fisher.safetensors")});
}

TEST_F(Plan, RefusesMissingTensors) {
  write_model(folder_ / "a", {tensors_[0], tensors_[2]});
  fisher("a", {fishers_[0]});
  expect_problem(
      {path("a") + " lacks tensors of " + path("base"), "'classifier.weight'"});
}

TEST_F(Plan, RefusesExtraTensors) {
  auto tensors = tensors_;
  tensors.push_back(floats("extra", {1}));
  write_model(folder_ / "a", tensors);
  auto fishers = fishers_;
  fishers.push_back(floats("extra", {1}));
  fisher("a", fishers);
  expect_problem(
      {path("a") + " has tensors that " + path("base") + " lacks: 'extra'"});
}

TEST_F(Plan, RefusesOtherShapes) {
  write_model(folder_ / "a", {floats("w", {1, 2}), tensors_[1], tensors_[2]});
  fisher("a", {floats("w", {1, 2}), fishers_[1]});
  expect_problem(
      {path("a") + " differs from " + path("base") + " in shape",
       "'w' [2], expected [3]"});
}

TEST_F(Plan, RefusesOtherKinds) {
  write_model(
      folder_ / "a",
      {tensors_[0], tensors_[1], floats("position_ids", {0, 1})});
  fisher("a", {fishers_[0], fishers_[1], floats("position_ids", {1, 1})});
  expect_problem(
      {path("a") + " differs from " + path("base") + " in type",
       "'position_ids' F32, expected I64"});
}

TEST_F(Plan, RefusesTypesThatItCannotMerge) {
  TestTensor narrow{{"w", DType::kF8E4M3, {3}}, std::vector<std::byte>(3)};
  for (const char* name : {"base", "a", "b"}) {
    write_model(folder_ / name, {narrow, tensors_[1], tensors_[2]});
    fisher(name, fishers_);
  }
  expect_problem({"types that cannot be merged", "'w' F8_E4M3"});
}

TEST_F(Plan, RefusesFishersWithoutATensor) {
  write_model(
      folder_ / "a",
      {tensors_[0], floats("classifier.weight", {4, 6}), tensors_[2]});
  fisher("a", {fishers_[0]});
  expect_problem(
      {path("a_fisher.safetensors") + " has no Fisher for tensors of " +
           path("a"),
       "'classifier.weight'"});
}

TEST_F(Plan, RefusesNarrowFishers) {
  fisher("base", {floats("w", {1, 1, 1}, DType::kF16), fishers_[1]});
  expect_problem(
      {path("base_fisher.safetensors"), "BF16, F32 or F64", "'w' F16"});
}

TEST_F(Plan, RefusesFishersThatDoNotSayTheirNumberOfExamples) {
  write_tensors(folder_ / "a_fisher.safetensors", fishers_);
  expect_problem({path("a_fisher.safetensors"), "set num_examples"});
  // The recipe has the number for b.
  fisher("a", fishers_);
  write_tensors(folder_ / "b_fisher.safetensors", fishers_);
  EXPECT_EQ(problems(), "nothing");
}

TEST_F(Plan, RefusesOtherConfigurations) {
  struct Case {
    std::string base, model, words;
  };
  for (const Case& c : std::initializer_list<Case>{
           {R"("vocab_size": 10)", R"("vocab_size": 11)", "vocab_size 11"},
           {R"("hidden_size": 4)", R"("hidden_size": 5)", "hidden_size 5"},
           {R"("num_attention_heads": 2)",
            R"("num_attention_heads": 4)",
            "num_attention_heads 4"},
           {R"("num_labels": 3)", R"("problem_type": "x")", "num_labels 2"},
           {R"("id2label": {"0": "bad", "1": "good"})",
            R"("id2label": {"0": "good", "1": "bad"})",
            "id2label"}}) {
    write_model(folder_ / "base", tensors_, "{" + c.base + "}");
    write_model(folder_ / "b", tensors_, "{" + c.model + "}");
    write_model(folder_ / "a", tensors_, "{" + c.base + "}");
    expect_problem(
        {path("b/config.json") + " has " + c.words, path("base/config.json")});
  }
  // Null stands for a default.
  write_model(folder_ / "base", tensors_, R"({"pad_token_id": 1})");
  write_model(folder_ / "b", tensors_, R"({"pad_token_id": null})");
  EXPECT_EQ(problems(), "nothing");
  write_model(
      folder_ / "base", tensors_, R"({"id2label": {"0": "bad", "1": "good"}})");
  // Unnamed classes and heads that are not merged may differ.
  write_model(
      folder_ / "b", tensors_, R"({"id2label": {"0": "LABEL_0", "1": "x"}})");
  expect_problem({"id2label"});
  EXPECT_EQ(problems("heads: base\n"), "nothing");
  write_model(
      folder_ / "b",
      tensors_,
      R"({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}})");
  EXPECT_EQ(problems(), "nothing");
  write_model(folder_ / "b", tensors_, "not json");
  expect_problem({path("b/config.json"), "JSON"});
}

TEST_F(Plan, RefusesOtherVocabularies) {
  write_text(folder_ / "b" / "vocab.txt", "[PAD]\nbye\n");
  expect_problem(
      {path("b/vocab.txt"), path("base/vocab.txt"), "different vocabularies"});
}

// tokenizer.json also holds the truncation and padding of its last use.
TEST_F(Plan, TakesTokenizersThatDifferInTruncationOnly) {
  write_text(
      folder_ / "base" / "tokenizer.json",
      R"({"truncation": null, "model": {"vocab": {"a": 0}}})");
  write_text(
      folder_ / "b" / "tokenizer.json",
      R"({"truncation": {"max_length": 8}, "model": {"vocab": {"a": 0}}})");
  EXPECT_EQ(problems(), "nothing");
  write_text(
      folder_ / "b" / "tokenizer.json",
      R"({"truncation": null, "model": {"vocab": {"a": 1}}})");
  expect_problem({"tokenizer.json", "different vocabularies"});
}

TEST_F(Plan, RefusesIntegersThatDifferWithoutABase) {
  recipe_ = "{merge_method: linear, models: [{model: a}, {model: b}]}";
  EXPECT_EQ(problems(), "nothing");
  write_model(
      folder_ / "b",
      {tensors_[0], tensors_[1], integers("position_ids", {1, 0})});
  expect_problem(
      {path("b/model.safetensors"),
       path("a/model.safetensors"),
       "'position_ids' I64"});
  recipe_ =
      "{merge_method: linear, base_model: base, models: [{model: a}, "
      "{model: b}]}";
  EXPECT_EQ(problems(), "nothing");
}

// Integers are read part by part; these differ after the first part.
TEST_F(Plan, RefusesLargeIntegersThatDifferWithoutABase) {
  recipe_ = "{merge_method: linear, models: [{model: a}, {model: b}]}";
  std::vector<int64_t> values(200'000);
  for (const char* name : {"a", "b"}) {
    write_model(folder_ / name, {tensors_[0], integers("ids", values)});
  }
  EXPECT_EQ(problems(), "nothing");
  values.back() = 1;
  write_model(folder_ / "b", {tensors_[0], integers("ids", values)});
  expect_problem(
      {path("b/model.safetensors"), path("a/model.safetensors"), "'ids' I64"});
}

TEST_F(Plan, RefusesTensorsThatOtherSlicesLack) {
  const auto write = [&](const std::string& name, const char* extra) {
    write_model(
        folder_ / name,
        {floats("w", {1}),
         floats("layer.0.w", {1}),
         floats("layer.1.w", {1}),
         floats(extra, {1})});
  };
  write("a", "v");
  write("b", "layer.1.bias");
  recipe_ =
      "{merge_method: linear, slices: [{sources: [{model: a, layer_range: [0, "
      "1]}, {model: b, layer_range: [1, 2]}]}]}";
  expect_problem(
      {path("b") + " has tensor 'layer.1.bias'", "layer 0 of " + path("a")});
}

TEST_F(Plan, RefusesConfigurationsThatItCannotChange) {
  for (const char* name : {"base", "a", "b"}) {
    write_model(folder_ / name, tensors_, "{broken");
  }
  recipe_ = "{merge_method: linear, out_dtype: bfloat16, models: [{model: a}]}";
  expect_problem({path("a/config.json"), "expected a JSON object"});
}

TEST_F(Plan, RefusesTheSameValueTwiceInASweep) {
  recipe_ = "{merge_method: linear, models: [{model: a}], ";
  expect_problem(
      {"a sweep contains the same value twice"},
      "parameters: {weight: {sweep: [0.5, 1, 0.5]}}}");
  EXPECT_EQ(problems("parameters: {weight: {sweep: [0.5, 1]}}}"), "nothing");
}

class PlanOfAnAdapter : public Plan {
 protected:
  static constexpr int64_t kRank = 3, kWidth = 1000;

  PlanOfAnAdapter() {
    write_model(folder_ / "a", {matrix("w.weight", kWidth, kWidth)});
    recipe_ = "{merge_method: linear, models: [{model: a, adapter: lora}]}";
    write_adapter("");
  }

  static TestTensor matrix(const std::string& name, int64_t rows, int64_t n) {
    TestTensor tensor = floats(name, std::vector<double>(rows * n, 1));
    tensor.info.shape = {rows, n};
    return tensor;
  }

  void write_adapter(const std::string& more) {
    std::filesystem::create_directories(folder_ / "lora");
    write_text(
        folder_ / "lora" / "adapter_config.json",
        R"({"peft_type": "LORA", "lora_alpha": 4, "r": 3)" + more + "}");
    write_tensors(
        folder_ / "lora" / "adapter_model.safetensors",
        {matrix("base_model.model.w.lora_A.weight", kRank, kWidth),
         matrix("base_model.model.w.lora_B.weight", kWidth, kRank)});
  }
};

// Every thread holds A, B and one of them as stored.
TEST_F(PlanOfAnAdapter, CountsItsMemory) {
  const MergePlan with = plan();
  recipe_ = "{merge_method: linear, models: [{model: a}]}";
  for (const int threads : {1, 4}) {
    EXPECT_EQ(
        buffer_memory(with, threads).bytes -
            buffer_memory(plan(), threads).bytes,
        threads * 3u * kRank * kWidth * sizeof(float));
  }
}

TEST_F(PlanOfAnAdapter, TakesKeysThatAreNull) {
  write_adapter(R"(, "lora_bias": null, "use_dora": null)");
  EXPECT_EQ(problems(), "nothing");
  write_adapter(R"(, "lora_bias": true)");
  expect_problem({path("lora/adapter_config.json"), "has lora_bias"});
}

TEST_F(Plan, RefusesHeadFilesOfOneName) {
  std::filesystem::create_directories(folder_ / "other");
  write_model(folder_ / "other" / "a", tensors_);
  recipe_ =
      "{merge_method: linear, base_model: base, heads: per_task, models: "
      "[{model: a}, {model: other/a}]}";
  expect_problem({"heads/a.safetensors", "rename one"});
}

} // namespace
} // namespace merganser::test
