#include "merganser/objective/groups.h"

#include <gtest/gtest.h>

#include "merganser/base/error.h"
#include "merganser/train/arena.h"
#include "support/small_task_models.h"

namespace merganser {
namespace {

TEST(Groups, BlocksOfAnEncoder) {
  Encoder model = test::TaskModels().create(1);
  const Arena arena(model->named_parameters());
  const ParameterGroups groups = make_groups(arena, Grouping::kBlock);
  EXPECT_EQ(
      groups.names,
      (std::vector<std::string>{
          "embeddings",
          "bert.encoder.layer.0 attention",
          "bert.encoder.layer.0 mlp",
          "bert.encoder.layer.1 attention",
          "bert.encoder.layer.1 mlp",
          "head"}));
  for (size_t i = 0; i < arena.entries().size(); ++i) {
    const std::string& tensor = arena.entries()[i].name;
    const std::string& group = groups.names[groups.of_entry[i]];
    EXPECT_EQ(
        group.ends_with(" attention"),
        tensor.find("attention") != std::string::npos)
        << tensor;
    EXPECT_EQ(
        group == "head",
        tensor.find("pooler") != std::string::npos ||
            tensor.find("classifier") != std::string::npos)
        << tensor;
  }
}

TEST(Groups, TensorsByGroup) {
  Encoder model = test::TaskModels().create(1);
  const Arena arena(model->named_parameters());
  const ParameterGroups groups = make_groups(arena, Grouping::kBlock);
  const auto listed = tensors_by_group(arena, groups);
  ASSERT_EQ(listed.size(), groups.names.size());
  size_t number = 0;
  for (size_t g = 0; g < listed.size(); ++g) {
    EXPECT_EQ(listed[g].name, groups.names[g]);
    number += listed[g].tensors.size();
  }
  EXPECT_EQ(number, arena.entries().size());
  EXPECT_EQ(listed.back().tensors.back(), "classifier.bias");
}

TEST(Groups, OneAndEveryTensor) {
  Encoder model = test::TaskModels().create(1);
  const Arena arena(model->named_parameters());
  EXPECT_EQ(make_groups(arena, Grouping::kGlobal).names.size(), 1);
  EXPECT_EQ(
      make_groups(arena, Grouping::kTensor).names.size(),
      arena.entries().size());
}

TEST(Groups, NamesAndBack) {
  for (const char* name : {"global", "block", "tensor"}) {
    EXPECT_EQ(grouping_name(parse_grouping(name)), name);
  }
  EXPECT_THROW(parse_grouping("layer"), InputError);
}

} // namespace
} // namespace merganser
