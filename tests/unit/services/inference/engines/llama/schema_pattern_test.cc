#include "services/inference/engines/llama/schema_pattern.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace runnel::inference {
namespace {

struct Row {
  std::string pattern;
  std::string plain;
};

TEST(SchemaPattern, BecomesPlain) {
  const std::vector<Row> rows = {
      {"", ""},
      {"^abc$", "^abc$"},
      {"^(?:a|b)+c{2,3}d?$", "^(?:a|b)+c{2,3}d?$"},
      {R"(^\d{3}-\d+$)", "^[0-9]{3}-[0-9]+$"},
      {R"(^\w+$)", R"(^[0-9A-Z\x5fa-z]+$)"},
      {R"(^[\d.-]+$)", R"(^[\x2d\x2e0-9]+$)"},
      {R"(^[\w.+-]+@[\w-]+\.[a-z]{2,}$)", R"(^[\x2b\x2d\x2e0-9A-Z\x5fa-z]+@[\x2d0-9A-Z\x5fa-z]+[\x2e][a-z]{2,}$)"},
      {R"(^\/\@\-\:$)", R"(^[\x2f][\x40][\x2d][\x3a]$)"},
      {R"(^[a\]]$)", R"(^[\x5da]$)"},
      {R"(^[a-]$)", R"(^[\x2da]$)"},
      {R"(^\x41\u0042\u{43}$)", "^[A][B][C]$"},
      {"^[é-ö]\xF0\x9F\x98\x80$", "^[\\xe9-\\xf6]\xF0\x9F\x98\x80$"},
      {"^[\xE2\x82\xAC\xF0\x9F\x98\x80]$", R"(^[\u20ac\U0001f600]$)"},
      // Characters that are escaped in a JSON string.
      {"^\"$", R"(^(?:\\")$)"},
      {R"(^\\$)", R"(^(?:\\\\)$)"},
      {R"(^\n\t$)", R"(^(?:\\n)(?:\\t)$)"},
      {"^a\nb$", R"(^a(?:\\n)b$)"},
      {R"(^\x00$)", R"(^(?:\\u0000)$)"},
      {R"(^["'a]$)", R"(^(?:[\x27a]|\\")$)"},
      {R"(^[ -~]$)", R"(^(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\"|\\\\)$)"},
      {R"(^[^a]$)", R"(^(?:[\x20\x21\x23-\x5b\x5d-\x60b-\ud7ff\ue000-\U0010ffff]|\\b|\\t|\\n|\\f|\\r|\\"|\\\\)$)"},
      {R"(^.$)", R"(^(?:[\x20\x21\x23-\x5b\x5d-\u2027\u202a-\ud7ff\ue000-\U0010ffff]|\\b|\\t|\\f|\\"|\\\\)$)"},
      {R"(^[^\D]$)", "^[0-9]$"},
      {R"(^[\D\d]$)", R"(^(?:[\x20\x21\x23-\x5b\x5d-\ud7ff\ue000-\U0010ffff]|\\b|\\t|\\n|\\f|\\r|\\"|\\\\)$)"},
      {R"(^[^\W_]$)", "^[0-9A-Za-z]$"},
      {R"(^\s$)", R"(^(?:[\x20\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff]|\\t|\\n|\\f|\\r)$)"},
      // Unchanged, for the converter to reject.
      {R"(^\bx$)", R"(^\bx$)"},
      {R"(^(a)\1$)", R"(^(a)\1$)"},
      {R"(^\p{L}\d$)", R"(^\p{L}\d$)"},
      {R"(^[z-a]$)", R"(^[z-a]$)"},
      {R"(^[\d-x]$)", R"(^[\d-x]$)"},
      {"^[abc", "^[abc"},
      {"^[", "^["},
      {"^[a-", "^[a-"},
      {R"(^\)", R"(^\)"},
      {R"(^[\)", R"(^[\)"},
      {R"(^\x4)", R"(^\x4)"},
      {R"(^\u{})", R"(^\u{})"},
      {R"(^\u{110000}$)", R"(^\u{110000}$)"},
      {R"(^\ud83d\ude00$)", R"(^\ud83d\ude00$)"},
      {"^[]$", "^[]$"},
  };
  for (const Row& row : rows) EXPECT_EQ(PlainPattern(row.pattern), row.plain) << row.pattern;
}

TEST(SchemaPattern, IsFoundWhereverASchemaMayBe) {
  EXPECT_EQ(WithPlainPatterns(R"({"type":"object","properties":{"z":{"pattern":"^\\d$"},"pattern":{"pattern":"^\\d$"},
      "a":{"anyOf":[{"pattern":"^\\d$"},{"items":{"pattern":"^\\d$"}}]}},"$defs":{"enum":{"pattern":"^\\d$"}}})"),
            R"({"type":"object","properties":{"z":{"pattern":"^[0-9]$"},"pattern":{"pattern":"^[0-9]$"},)"
            R"("a":{"anyOf":[{"pattern":"^[0-9]$"},{"items":{"pattern":"^[0-9]$"}}]}},)"
            R"("$defs":{"enum":{"pattern":"^[0-9]$"}}})");
}

TEST(SchemaPattern, LeavesTheRestOfASchemaAlone) {
  for (const char* schema :
       {R"({ "const" : {"pattern":"^\\d$"} })", R"({"enum":[{"pattern":"\\d"}],"default":{"pattern":"\\d"}})",
        R"({"pattern":"^[0-9]$"})", R"({"pattern":5})", R"({"properties":{"pattern":true}})", "true", "[]", "{", ""}) {
    EXPECT_EQ(WithPlainPatterns(schema), schema);
  }
}

}  // namespace
}  // namespace runnel::inference
