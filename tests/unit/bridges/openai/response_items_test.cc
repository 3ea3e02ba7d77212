#include "bridges/openai/response_items.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace runnel::openai {
namespace {

const std::string kRandom(26, 'a');
const std::string kGen = "gen_" + kRandom;

TEST(ResponseItems, HaveIdsThatNameTheirPart) {
  const struct {
    uint32_t part;
    v1::PartKind kind;
    std::string id;
  } rows[] = {
      {0, v1::PART_KIND_TEXT, "msg_" + kRandom},
      {1, v1::PART_KIND_TEXT, "msg_" + kRandom + "_1"},
      {0, v1::PART_KIND_REFUSAL, "msg_" + kRandom},
      {0, v1::PART_KIND_REASONING, "rs_" + kRandom},
      {7, v1::PART_KIND_TOOL_CALL, "fc_" + kRandom + "_7"},
      {1023, v1::PART_KIND_TEXT, "msg_" + kRandom + "_1023"},
  };
  for (const auto& row : rows) {
    EXPECT_EQ(ItemIdOf(kGen, {.part = row.part, .kind = row.kind}), row.id);
    const auto name = ParseItemId(row.id);
    ASSERT_TRUE(name.has_value()) << row.id;
    EXPECT_EQ(name->generation_id, kGen);
    EXPECT_EQ(name->part, row.part);
    EXPECT_TRUE(IsPrefixOf(name->prefix, row.kind));
  }
  EXPECT_FALSE(IsPrefixOf("msg", v1::PART_KIND_TOOL_CALL));
  EXPECT_FALSE(IsPrefixOf("msg", static_cast<v1::PartKind>(99)));
}

TEST(ResponseItems, RejectIdsThatNameNothing) {
  for (const std::string& id : {std::string(),
                                std::string("msg"),
                                std::string("msg_"),
                                "resp_" + kRandom,
                                "gen_" + kRandom,
                                kRandom,
                                "msg_" + kRandom + "_",
                                "msg_" + kRandom + "_0",
                                "msg_" + kRandom + "_01",
                                "msg_" + kRandom + "_1024",
                                "msg_" + kRandom + "_-1",
                                "msg_" + kRandom + "_1_2",
                                "msg_" + kRandom + "_99999999999999999999",
                                "msg_" + kRandom + "a",
                                "msg_" + kRandom.substr(1),
                                "MSG_" + kRandom,
                                "msg_" + std::string(26, 'A'),
                                "msg_" + kRandom + std::string("\0", 1),
                                "fc_" + kRandom + "_1 ",
                                " fc_" + kRandom}) {
    EXPECT_FALSE(ParseItemId(id).has_value()) << id;
  }
}

}  // namespace
}  // namespace runnel::openai
