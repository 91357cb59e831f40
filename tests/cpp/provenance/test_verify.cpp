// A merged model compared with what merganser.json records.

#include "merganser/provenance/verify.h"

#include <gtest/gtest.h>

#include "merganser/io/hash.h"
#include "support/expect_error.h"
#include "support/model_files.h"
#include "support/temporary_folder.h"

namespace merganser {
namespace {

namespace fs = std::filesystem;
using State = Verification::State;

class Verify : public ::testing::Test {
 protected:
  // A model in all/out, merged from all/a and all/b.
  Verify() {
    for (const char* name : {"a", "b", "out"}) {
      test::write_model(all_ / name, {test::floats("w", {1, 2})});
    }
    provenance_.recipe = "merge_method: linear\n";
    Hasher hasher;
    hasher.update(provenance_.recipe.data(), provenance_.recipe.size());
    provenance_.recipe_hash = hasher.digest();
    provenance_.content_hash = Checkpoint(all_ / "out").content_hash();
    for (const char* name : {"a", "b"}) {
      provenance_.inputs.push_back(
          {all_ / name,
           fs::path("..") / name,
           Checkpoint(all_ / name).content_hash(),
           ""});
    }
    provenance_.write(all_ / "out");
  }

  test::TemporaryFolder folder_;
  fs::path all_ = folder_ / "all";
  Provenance provenance_;
};

TEST_F(Verify, FindsInputsThatMovedWithTheModel) {
  EXPECT_TRUE(verify(all_ / "out").good());
  fs::rename(all_, folder_ / "moved");
  const Verification found = verify(folder_ / "moved" / "out");
  EXPECT_TRUE(found.good());
  ASSERT_EQ(found.inputs.size(), 2);
  EXPECT_EQ(found.inputs[0].state, State::kSame);
  EXPECT_EQ(found.inputs[0].path, all_ / "a"); // as in the recipe
}

TEST_F(Verify, MissingInputsAreGoodAndChangedOnesAreNot) {
  fs::remove_all(all_ / "a");
  Verification found = verify(all_ / "out");
  EXPECT_EQ(found.inputs[0].state, State::kMissing);
  EXPECT_NE(found.inputs[0].problem, "");
  EXPECT_TRUE(found.good());
  test::write_model(all_ / "b", {test::floats("w", {1, 3})});
  found = verify(all_ / "out");
  EXPECT_EQ(found.inputs[1].state, State::kChanged);
  EXPECT_FALSE(found.good());
  test::write_text(all_ / "b" / "model.safetensors", "no checkpoint");
  EXPECT_EQ(verify(all_ / "out").inputs[1].state, State::kChanged);
}

TEST_F(Verify, ChangedSettingsAreAChange) {
  provenance_.inputs[0].settings_hash = "of other metadata";
  provenance_.write(all_ / "out");
  EXPECT_EQ(verify(all_ / "out").inputs[0].state, State::kChanged);
}

TEST_F(Verify, AnEditedRecipeIsAChangedModel) {
  provenance_.recipe += "# edited\n";
  provenance_.write(all_ / "out");
  const Verification found = verify(all_ / "out");
  EXPECT_EQ(found.output.state, State::kChanged);
  EXPECT_NE(found.output.problem.find("recipe"), std::string::npos);
  EXPECT_FALSE(found.good());
}

TEST_F(Verify, AModelOfSomethingElseIsRefused) {
  test::expect_error<InputError>(
      [&] { verify(all_ / "a"); },
      {"a: no merganser.json; expected a model merged"});
}

} // namespace
} // namespace merganser
