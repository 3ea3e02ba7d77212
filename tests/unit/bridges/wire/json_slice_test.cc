#include "bridges/wire/json_slice.h"

#include <gtest/gtest.h>

namespace runnel::bridge {
namespace {

TEST(JsonSlice, FindsMembersAndElements) {
  constexpr char kObject[] =
      " { \"a\" : {\"b\":\"}\\\"]\"} , \"b\":[ 1 ,\"x,\",{\"c\":[]} ] ,\"\\u0063\":true,\"d\":-1e5} ";
  EXPECT_EQ(FindMember(kObject, "a"), "{\"b\":\"}\\\"]\"}");
  EXPECT_EQ(FindMember(kObject, "b"), "[ 1 ,\"x,\",{\"c\":[]} ]");
  EXPECT_EQ(FindMember(kObject, "c"), "true");
  EXPECT_EQ(FindMember(kObject, "d"), "-1e5");
  EXPECT_EQ(FindMember(kObject, "e"), "");
  EXPECT_EQ(FindMember("\xEF\xBB\xBF {\"a\":1}", "a"), "1");
  EXPECT_EQ(FindMember("{}", "a"), "");
  EXPECT_EQ(FindMember("", "a"), "");
  const auto elements = ElementsOf(FindMember(kObject, "b"));
  ASSERT_EQ(elements.size(), 3u);
  EXPECT_EQ(elements[0], "1");
  EXPECT_EQ(elements[1], "\"x,\"");
  EXPECT_EQ(elements[2], "{\"c\":[]}");
  EXPECT_TRUE(ElementsOf("[ ]").empty());
  EXPECT_TRUE(ElementsOf("").empty());
}

TEST(JsonSlice, CompactsAndMeasures) {
  EXPECT_EQ(Compact(" { \"a b\" : [ 1 ,\n\t2 ] , \"\\\" \" : \" x \" } "), "{\"a b\":[1,2],\"\\\" \":\" x \"}");
  EXPECT_EQ(DepthOf("1"), 0u);
  EXPECT_EQ(DepthOf("{}"), 1u);
  EXPECT_EQ(DepthOf("{\"a\":[{\"[[[\":1}],\"b\":[]}"), 3u);
}

}  // namespace
}  // namespace runnel::bridge
