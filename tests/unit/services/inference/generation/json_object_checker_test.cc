#include "services/inference/generation/json_object_checker.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace runnel::inference {
namespace {

bool IsObject(std::string_view text) {
  JsonObjectChecker whole;
  whole.Add(text);
  JsonObjectChecker pieces;
  for (const char& c : text) pieces.Add({&c, 1});
  EXPECT_EQ(whole.complete(), pieces.complete()) << text;
  return whole.complete();
}

TEST(JsonObjectChecker, AcceptsOneObject) {
  for (const char* text :
       {"{}", " \t\r\n{ } ", R"({"a":1})", R"({"":{"b":[]},"c":[1,"x",null,true,false,{"d":-0.5e+10}]})",
        R"({"a":0,"b":-0,"c":10,"d":1.0,"e":1E5,"f":0.1e-2})", R"({"a":"\"\\\/\b\f\n\r\t\u00e9\uD83D"})",
        "{\"a\":\"\u6C34\x7F\"}", R"({"a":1e999})", R"({"a":1,"a":2})", R"({"a" : [ 1 , 2 ] , "b" : { } })"}) {
    EXPECT_TRUE(IsObject(text)) << text;
  }
}

TEST(JsonObjectChecker, RejectsEverythingElse) {
  for (const char* text : {"",
                           " ",
                           "[]",
                           "1",
                           "\"a\"",
                           "null",
                           "{",
                           "}",
                           "{}{}",
                           "{} x",
                           "{}]",
                           R"({"a"})",
                           R"({"a":})",
                           R"({"a":1)",
                           R"({"a":1,})",
                           R"({,})",
                           R"({a:1})",
                           R"({'a':1})",
                           R"({"a":[1,]})",
                           R"({"a":[,1]})",
                           R"({"a":[1})",
                           R"({"a":[1}])",
                           R"({"a":01})",
                           R"({"a":+1})",
                           R"({"a":1.})",
                           R"({"a":.5})",
                           R"({"a":1e})",
                           R"({"a":1e+})",
                           R"({"a":-})",
                           R"({"a":--1})",
                           R"({"a":tru})",
                           R"({"a":truee})",
                           R"({"a":True})",
                           R"({"a":nul})",
                           R"({"a":NaN})",
                           R"({"a":"\x"})",
                           R"({"a":"\u12g4"})",
                           R"({"a":"\u123"})",
                           "{\"a\":\"\n\"}",
                           R"({"a":"b)",
                           R"({"a":"b\)",
                           R"({"a" 1})",
                           R"({"a":1 "b":2})",
                           R"({"a":1;"b":2})",
                           "\xEF\xBB\xBF{}",
                           R"({"a":0x10})",
                           R"({"a":1}/**/)",
                           R"({"a":00})",
                           R"({"a":-01})",
                           R"({"a":1e5.5})"}) {
    EXPECT_FALSE(IsObject(text)) << text;
  }
  EXPECT_FALSE(IsObject(std::string_view("{}\0", 3)));
}

TEST(JsonObjectChecker, LimitsTheDepth) {
  const auto nested = [](size_t depth) {
    std::string text = "{\"a\":";
    text += std::string(depth - 1, '[') + std::string(depth - 1, ']') + "}";
    return text;
  };
  EXPECT_TRUE(IsObject(nested(JsonObjectChecker::kMaxDepth)));
  EXPECT_FALSE(IsObject(nested(JsonObjectChecker::kMaxDepth + 1)));
}

// Every string of up to six characters of an alphabet that covers the grammar, against a parser.
TEST(JsonObjectChecker, AgreesWithAParser) {
  const std::string alphabet = "{}[]\":,1-e0 \\";
  std::vector<std::string> texts = {"{", "{\"a\":", "{\"a\":[1,{\"b\":"};
  size_t objects = 0;
  for (int length = 0; length < 4; ++length) {
    std::vector<std::string> longer;
    for (const std::string& text : texts) {
      for (const char c : alphabet) longer.push_back(text + c);
    }
    for (const std::string& text : longer) {
      const bool expected = nlohmann::json::accept(text);
      ASSERT_EQ(IsObject(text), expected) << text;
      objects += expected ? 1 : 0;
    }
    texts = std::move(longer);
  }
  EXPECT_GT(objects, 50u);
}

}  // namespace
}  // namespace runnel::inference
