#include "bridges/sse/http/routes.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "bridges/sse/http/static_files.h"

namespace runnel::sse {
namespace {

struct Row {
  std::string target;
  Endpoint endpoint;
  std::string id;
};

TEST(Routes, FindEndpoints) {
  const std::vector<Row> rows = {
      {"/", Endpoint::kPage, ""},
      {"/runnel.js?v=1", Endpoint::kPage, ""},
      {"/config.json", Endpoint::kConfig, ""},
      {"/v1/generations", Endpoint::kGenerations, ""},
      {"/v1/generations/gen_a", Endpoint::kGeneration, "gen_a"},
      {"/v1/generations/gen_a/events?after=3", Endpoint::kEvents, "gen_a"},
      {"/v1/generations/gen_a/cancel", Endpoint::kCancel, "gen_a"},
      {"/v1/generations/gen%5Fa", Endpoint::kGeneration, "gen_a"},
      {"/v1/generations/a%2Fb", Endpoint::kGeneration, "a/b"},
      {"/v1/generations/", Endpoint::kGeneration, ""},
      {"/v1/generations/gen_a/", Endpoint::kNone, "gen_a"},
      {"/v1/generations/gen_a/events/", Endpoint::kNone, "gen_a"},
      {"/v1/generations/gen_a/other", Endpoint::kNone, "gen_a"},
      {"/v1/models", Endpoint::kModels, ""},
      {"/v1/models/org%2Fname", Endpoint::kModel, "org/name"},
      {"/v1/models/org/name", Endpoint::kModel, "org/name"},
      {"/v1/chat", Endpoint::kNone, ""},
      {"/v1/chat/completions?x=1", Endpoint::kChatCompletions, ""},
      {"/v1/chat/completions/", Endpoint::kNone, ""},
      {"/v1/completions", Endpoint::kCompletions, ""},
      {"/v1/responses", Endpoint::kResponses, ""},
      {"/v1/responses/resp_a?stream=true", Endpoint::kResponse, "resp_a"},
      {"/v1/responses/resp_a/cancel", Endpoint::kResponseCancel, "resp_a"},
      {"/v1/responses/resp_a/input_items", Endpoint::kNone, "resp_a"},
      {"/v1/", Endpoint::kNone, ""},
      {"/v1", Endpoint::kNone, ""},
      {"/v10", Endpoint::kNone, ""},
      {"/index.html", Endpoint::kPage, ""},
      {"/health?x=1", Endpoint::kHealth, ""},
      {"/v1/health", Endpoint::kNone, ""},
      // A base URL without /v1.
      {"/chat/completions", Endpoint::kChatCompletions, ""},
      {"/completions?x=1", Endpoint::kCompletions, ""},
      {"/responses", Endpoint::kResponses, ""},
      {"/responses/resp_a", Endpoint::kResponse, "resp_a"},
      {"/responses/resp_a/cancel", Endpoint::kResponseCancel, "resp_a"},
      {"/models", Endpoint::kModels, ""},
      {"/models/org%2Fname", Endpoint::kModel, "org/name"},
      {"/generations", Endpoint::kNone, ""},
      {"/v1/v1/chat/completions", Endpoint::kNone, ""},
      {"/tokenize", Endpoint::kNone, ""},
      {"/api/chat", Endpoint::kNone, ""},
      {"/openai/deployments/m/chat/completions?api-version=1", Endpoint::kNone, ""},
      {"/modelsx", Endpoint::kNone, ""},
      {"http://host:80/v1/models", Endpoint::kModels, ""},
      {"http://host", Endpoint::kPage, ""},
      {"/x://y", Endpoint::kNone, ""},
      {"*", Endpoint::kNone, ""},
  };
  for (const Row& row : rows) {
    const auto route = ParseTarget(row.target);
    ASSERT_TRUE(route.ok()) << row.target << ": " << route.status();
    EXPECT_EQ(route->endpoint, row.endpoint) << row.target;
    EXPECT_EQ(route->id, row.id) << row.target;
  }
}

TEST(Routes, DecodeTheQuery) {
  const auto route = ParseTarget("/v1/models?a=1&b=x+y%26z&c&=e&d=#fragment");
  ASSERT_TRUE(route.ok()) << route.status();
  EXPECT_EQ(route->query,
            (std::map<std::string, std::string>{{"", "e"}, {"a", "1"}, {"b", "x y&z"}, {"c", ""}, {"d", ""}}));
  // An array, as OpenAI's clients write it.
  EXPECT_EQ(ParseTarget("/v1/models?a[]=1&b=x&a%5B%5D=2&a[]=")->query,
            (std::map<std::string, std::string>{{"a[]", "1,2,"}, {"b", "x"}}));
}

TEST(Routes, RejectBadTargets) {
  for (const char* target :
       {"", "x", "?a=1", "//%", "/%zz", "/%1", "/%", "/%00", "/v1/models?a=%00", "/?a=1&a=2", "/v1/generations/%f"}) {
    EXPECT_EQ(ParseTarget(target).status().code(), absl::StatusCode::kInvalidArgument) << target;
  }
}

TEST(Routes, KnowTheirMethods) {
  EXPECT_TRUE(IsAllowed(Endpoint::kGenerations, "POST"));
  EXPECT_FALSE(IsAllowed(Endpoint::kGenerations, "GET"));
  EXPECT_TRUE(IsAllowed(Endpoint::kGeneration, "DELETE"));
  EXPECT_TRUE(IsAllowed(Endpoint::kPage, "HEAD"));
  EXPECT_FALSE(IsAllowed(Endpoint::kCancel, "HEAD"));
  for (int i = 0; i <= static_cast<int>(Endpoint::kResponseCancel); ++i) {
    const auto endpoint = static_cast<Endpoint>(i);
    EXPECT_EQ(IsAllowed(endpoint, "HEAD"), IsAllowed(endpoint, "GET")) << i;
  }
  EXPECT_FALSE(IsAllowed(Endpoint::kPage, "GET, HEAD"));
  EXPECT_FALSE(IsAllowed(Endpoint::kPage, ""));
}

TEST(StaticFiles, ContainThePage) {
  const StaticFile* page = FindStaticFile("/");
  ASSERT_NE(page, nullptr);
  EXPECT_EQ(page->content_type, "text/html; charset=utf-8");
  EXPECT_NE(page->bytes.find("<!doctype html>"), std::string_view::npos);
  ASSERT_NE(FindStaticFile("/runnel.js"), nullptr);
  EXPECT_EQ(FindStaticFile("/runnel.js")->content_type, "text/javascript; charset=utf-8");
  EXPECT_EQ(FindStaticFile("/../CMakeLists.txt"), nullptr);
  EXPECT_EQ(FindStaticFile("/index.html/"), nullptr);
  EXPECT_EQ(FindStaticFile(""), nullptr);
}

TEST(StaticFiles, RespondWithTheFileOrNotModified) {
  const StaticFile& file = *FindStaticFile("/page.css");
  const bridge::HttpResponse fresh = StaticResponse(file, "", PageHeaders("wss://chat.example:8443"));
  EXPECT_EQ(fresh.status, 200);
  EXPECT_EQ(fresh.body, file.bytes);
  EXPECT_NE(
      fresh.headers.find("content-security-policy: default-src 'self'; connect-src 'self' wss://chat.example:8443;"),
      std::string::npos);
  EXPECT_NE(fresh.headers.find("x-content-type-options: nosniff\r\n"), std::string::npos);
  EXPECT_EQ(StaticResponse(file, "\"other\", " + std::string(file.etag), "").status, 304);
  EXPECT_EQ(StaticResponse(file, "\"other\"", "").status, 200);
}

}  // namespace
}  // namespace runnel::sse
