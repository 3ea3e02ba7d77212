#include "services/inference/engines/llama/schema_limits.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/str_cat.h"

namespace runnel::inference {
namespace {

using nlohmann::json;

std::string Properties(int count) {
  json properties = json::object();
  for (int i = 0; i < count; ++i) properties[absl::StrCat("p", i)] = json::object();
  return properties.dump();
}

// llama.cpp's converter overflows its stack.
TEST(SchemaLimits, RejectsRefsInALoopInsideAllOf) {
  const char* const rows[] = {
      R"({"allOf":[{"$ref":"#/$defs/a"}],"$defs":{"a":{"$ref":"#/$defs/a"}}})",
      R"({"allOf":[{"$ref":"#/$defs/a"}],"$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}}})",
      R"({"allOf":[{"anyOf":[{"$ref":"#/$defs/a"}]}],"$defs":{"a":{"$ref":"#/$defs/a"}}})",
      R"({"allOf":[{"$ref":"#/x/0"}],"x":[{"$ref":"#/x/0"}]})",
      R"({"allOf":[{"$ref":"#/$defs/a~1b"}],"$defs":{"a~1b":{"$ref":"#/$defs/a~1b"}}})",
      R"({"type":"array","items":{"allOf":[{"$ref":"#/$defs//a"}]},"$defs":{"":{"a":{"$ref":"#/$defs//a"}}}})",
      R"({"allOf":[{"$ref":"#/allOf/0"}]})",
  };
  for (const char* row : rows) EXPECT_FALSE(CheckSchemaLimits(row).ok()) << row;
}

TEST(SchemaLimits, RejectsSchemasThatTakeSecondsToConvert) {
  EXPECT_FALSE(CheckSchemaLimits(absl::StrCat(R"({"properties":)", Properties(129), "}")).ok());
  EXPECT_TRUE(CheckSchemaLimits(absl::StrCat(R"({"properties":)", Properties(128), "}")).ok());
  // Required properties cost little.
  json needed = {{"properties", json::parse(Properties(500))}, {"required", json::array()}};
  for (int i = 0; i < 500; ++i) needed["required"].push_back(absl::StrCat("p", i));
  EXPECT_TRUE(CheckSchemaLimits(needed.dump()).ok());
  // The same properties many times, by reference.
  json again = {{"allOf", {{{"anyOf", json::array()}}}},
                {"$defs", {{"a", {{"properties", json::parse(Properties(60))}}}}}};
  for (int i = 0; i < 30; ++i) again["allOf"][0]["anyOf"].push_back({{"$ref", "#/$defs/a"}});
  EXPECT_FALSE(CheckSchemaLimits(again.dump()).ok());
  EXPECT_FALSE(CheckSchemaLimits(json{{"type", std::vector<std::string>(8, "string")}}.dump()).ok());
}

TEST(SchemaLimits, AllowsOrdinarySchemas) {
  const char* const rows[] = {
      "true",
      "{}",
      R"({"type":["string","null"]})",
      R"({"$ref":"#/$defs/node","$defs":{"node":{"type":"object","properties":{"next":{"$ref":"#/$defs/node"}}}}})",
      R"({"allOf":[{"$ref":"#/$defs/a"},{"$ref":"#/$defs/a"}],"$defs":{"a":{"properties":{"x":{"$ref":"#/$defs/a"}}}}})",
      R"({"properties":{"$ref":{"type":"string"},"allOf":{"type":"array"},"type":{},"required":{}}})",
      R"({"allOf":5,"properties":[1],"required":{"a":1},"type":{}})",
      R"({"allOf":[1,{"anyOf":7},{"$ref":9}]})",
  };
  for (const char* row : rows) EXPECT_TRUE(CheckSchemaLimits(row).ok()) << row << CheckSchemaLimits(row);
}

}  // namespace
}  // namespace runnel::inference
