#include <gtest/gtest.h>

#include "merganser/io/atomic_file.h"
#include "merganser/io/hub_cache.h"
#include "support/environment.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace merganser {
namespace {

namespace fs = std::filesystem;

TEST(HubCache, ReadsNames) {
  const auto plain = parse_hub_model("openai-community/gpt2");
  ASSERT_TRUE(plain);
  EXPECT_EQ(plain->name, "openai-community/gpt2");
  EXPECT_EQ(plain->revision, "main");
  const auto revision = parse_hub_model("o/n.1@refs/pr/1");
  ASSERT_TRUE(revision);
  EXPECT_EQ(revision->name, "o/n.1");
  EXPECT_EQ(revision->revision, "refs/pr/1");
}

TEST(HubCache, TakesOtherTextsForPaths) {
  for (const char* text :
       {"",
        "gpt2",
        "/models/a",
        "./models",
        "../models",
        "models/",
        "a/b/c",
        "a/-b",
        "a/b--c",
        "a b/c",
        "a/b@",
        "a/b@../c",
        "a/b@/c",
        "a/b@c d",
        "fishers/a.safetensors",
        "models/model.safetensors.index.json"}) {
    EXPECT_FALSE(parse_hub_model(text)) << text;
  }
}

TEST(HubCache, FollowsTheVariables) {
  test::Environment variables;
  for (const char* name : {"HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"}) {
    variables.unset(name);
  }
  variables.set("HOME", "/home/me");
  EXPECT_EQ(hub_cache(), "/home/me/.cache/huggingface/hub");
  variables.set("XDG_CACHE_HOME", "/xdg");
  EXPECT_EQ(hub_cache(), "/xdg/huggingface/hub");
  variables.set("HF_HOME", "~/hf");
  EXPECT_EQ(hub_cache(), "/home/me/hf/hub");
  variables.set("HF_HUB_CACHE", "relative");
  EXPECT_EQ(hub_cache(), fs::current_path() / "relative");
}

class CacheOfAModel : public testing::Test {
 protected:
  CacheOfAModel() {
    variables_.set("HF_HUB_CACHE", cache_);
    fs::create_directories(snapshot_);
    fs::create_directories(repository_ / "refs" / "pr");
    write_file(repository_ / "refs" / "main", "c0ffee");
    write_file(repository_ / "refs" / "pr" / "1", "c0ffee\n");
    write_file(repository_ / "refs" / "lost", "decade");
    write_file(snapshot_ / "config.json", "{}");
    write_file(snapshot_ / "model.safetensors", "");
  }
  ~CacheOfAModel() override {
    set_hub_download(nullptr);
  }

  const test::TemporaryFolder temporary_;
  const fs::path cache_ = temporary_ / "cache";
  const fs::path repository_ = cache_ / "models--org--name";
  const fs::path snapshot_ = repository_ / "snapshots" / "c0ffee";
  test::Environment variables_;
};

TEST_F(CacheOfAModel, FindsBranchesTagsAndCommits) {
  for (const char* revision : {"main", "pr/1", "c0ffee"}) {
    EXPECT_EQ(find_in_hub_cache({"org/name", revision}, cache_), snapshot_);
  }
}

TEST_F(CacheOfAModel, LacksOtherModelsAndRevisions) {
  EXPECT_FALSE(find_in_hub_cache({"org/other"}, cache_));
  EXPECT_FALSE(find_in_hub_cache({"org/name", "other"}, cache_));
  EXPECT_FALSE(find_in_hub_cache({"org/name", "lost"}, cache_));
}

TEST_F(CacheOfAModel, PrefersAnExistingDirectory) {
  const fs::path local = temporary_ / "recipes" / "org" / "name";
  EXPECT_EQ(find_model("org/name", local), snapshot_);
  fs::create_directories(local);
  EXPECT_EQ(find_model("org/name", local), local);
}

TEST_F(CacheOfAModel, LeavesOtherTextsToTheReader) {
  EXPECT_EQ(find_model("a/b/c", "/nowhere/a/b/c"), "/nowhere/a/b/c");
}

TEST_F(CacheOfAModel, NamesBothPlacesAndTheCommand) {
  test::expect_error<InputError>(
      [] { find_model("org/name@v2"); },
      {"'org/name@v2' is neither a directory nor a model in the Hub's cache " +
           cache_.string(),
       "download it with: merganser download org/name@v2"});
}

TEST_F(CacheOfAModel, NamesWhatAnUnfinishedDownloadLacks) {
  const auto expect_missing = [&](const std::string& what) {
    test::expect_error<InputError>(
        [] { find_model("org/name"); },
        {"'org/name' is not a directory, and the Hub's cache has only a part",
         snapshot_.string() + " lacks " + what,
         "complete it with: merganser download org/name"});
  };
  const fs::path weights = snapshot_ / "model.safetensors";
  fs::remove(weights);
  expect_missing("weights in .safetensors files");
  fs::create_symlink("../../blobs/none", weights);
  expect_missing("model.safetensors");
  fs::remove(weights);
  write_file(
      snapshot_ / "model.safetensors.index.json",
      R"({"weight_map": {"a": "model-1-of-2.safetensors",)"
      R"( "b": "model-2-of-2.safetensors"}})");
  write_file(snapshot_ / "model-1-of-2.safetensors", "");
  expect_missing("model-2-of-2.safetensors");
  fs::remove(snapshot_ / "config.json");
  expect_missing("config.json");
}

// An adapter has no config.json.
TEST_F(CacheOfAModel, FindsAnAdapter) {
  fs::remove(snapshot_ / "config.json");
  fs::rename(
      snapshot_ / "model.safetensors", snapshot_ / "adapter_model.safetensors");
  write_file(snapshot_ / "adapter_config.json", "{}");
  EXPECT_EQ(find_model("org/name"), snapshot_);
}

TEST_F(CacheOfAModel, DownloadsWhatIsMissing) {
  set_hub_download([](const HubModel& model, const fs::path& cache) {
    EXPECT_EQ(model.name, "org/name");
    EXPECT_EQ(model.revision, "main");
    write_file(
        cache / "models--org--name/snapshots/c0ffee/model.safetensors", "");
  });
  fs::remove(snapshot_ / "model.safetensors");
  EXPECT_EQ(find_model("org/name"), snapshot_);
  set_hub_download([](const HubModel&, const fs::path&) { FAIL(); });
  EXPECT_EQ(find_model("org/name"), snapshot_); // has it now
}

TEST_F(CacheOfAModel, AsksTheFinderInPlaceOfADownload) {
  set_hub_download([](const HubModel&, const fs::path&) { FAIL(); });
  const fs::path elsewhere = temporary_ / "elsewhere";
  {
    const HubFinder finder = [&](const std::string& text,
                                 const HubModel& model) {
      EXPECT_EQ(text, "org/other@v1");
      EXPECT_EQ(model.name, "org/other");
      EXPECT_EQ(model.revision, "v1");
      return elsewhere;
    };
    const HubFinderScope scope(finder);
    EXPECT_EQ(find_model("org/other@v1"), elsewhere);
    EXPECT_EQ(find_model("org/name"), snapshot_);
  }
  set_hub_download(nullptr);
  EXPECT_THROW(find_model("org/other@v1"), InputError);
}

TEST_F(CacheOfAModel, NamesSnapshots) {
  EXPECT_EQ(hub_name_of(snapshot_), "org/name");
  EXPECT_EQ(model_name(snapshot_), "org/name");
  EXPECT_FALSE(hub_name_of(snapshot_ / "config.json"));
  EXPECT_FALSE(hub_name_of(repository_));
  EXPECT_EQ(model_name("models/a"), "a");
}

} // namespace
} // namespace merganser
