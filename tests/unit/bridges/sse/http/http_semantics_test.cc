// RFC 9110 on the routes: media types, HEAD, paths that do not exist.
#include <gtest/gtest.h>

#include <atomic>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "bridges/openai/responses_request.h"
#include "bridges/sse/http/routes.h"
#include "services/base/grpc_status.h"
#include "tests/unit/bridges/sse/sse_harness.h"

namespace runnel::sse {
namespace {

using nlohmann::json;

const std::string kGen = FakeId('a');
const std::string kPath = "/v1/generations/" + kGen;
const std::string kResponse = "/v1/responses/resp_" + std::string(26, 'a');
const std::string kStream = "text/event-stream; charset=utf-8";

std::string TypeFor(SseHarness* harness, const std::string& accept) {
  const auto client = harness->Connect();
  EXPECT_TRUE(client->Request("POST", "/v1/generations", accept, R"({"prompt":"p"})").ok());
  const auto command = harness->service.NextCommand();
  if (!command.has_value()) return "";
  harness->service.Attach(*command, kGen, v1::GENERATION_STATUS_RUNNING, 1);
  harness->service.SendEvents(*command, {StartedEvent()});
  const auto head = client->ReadHead();
  return head.ok() ? head->headers.at("content-type") : head.status().ToString();
}

TEST(MediaTypes, DecideBetweenAStreamAndJson) {
  const std::pair<const char*, std::string> rows[] = {
      {"", "application/json"},
      {"Accept: Text/Event-Stream\r\n", kStream},
      {"Accept: application/json\r\nAccept: text/event-stream\r\n", kStream},
      {"Accept: text/event-streaming\r\n", "application/json"},
      {"Accept: text/event-stream;q=0, */*\r\n", "application/json"},
      {"Accept: */*\r\n", "application/json"},
      {"Accept: text/*\r\n", kStream},
  };
  for (const auto& [accept, type] : rows) {
    SseHarness harness;
    EXPECT_EQ(TypeFor(&harness, accept), type) << accept;
  }
}

TEST(MediaTypes, OfABodyIsJsonAlone) {
  SseHarness harness;
  for (const char* path : {"/v1/generations", "/v1/chat/completions", "/v1/completions", "/v1/responses"}) {
    // A second line in addition to that of the client.
    const auto response = harness.Ask("POST", path, "Content-Type: text/plain\r\n", "{}");
    EXPECT_EQ(response.head.status, 415) << path;
    EXPECT_NE(response.body.find(R"("code":"unsupported_media_type")"), std::string::npos) << response.body;
  }
}

TEST(Bodies, EndWhereTheyEnd) {
  SseHarness harness;
  const std::pair<const char*, const char*> rows[] = {
      {"/v1/generations", R"({"prompt":"p"})"},
      {"/v1/chat/completions", R"({"model":"m","messages":[{"role":"user","content":"hi"}]})"},
      {"/v1/completions", R"({"model":"m","prompt":"p"})"},
      {"/v1/responses", R"({"model":"m","input":"hi"})"},
  };
  for (const auto& [path, body] : rows) {
    for (const std::string& rest :
         {std::string(1, '\0'), std::string("\0junk", 5), std::string(" x"), std::string("{}")}) {
      EXPECT_EQ(harness.Ask("POST", path, "", body + rest).head.status, 400) << path;
    }
  }
  EXPECT_EQ(harness.service.pending_commands(), 0u);
}

v1::Generation Kept(bool done) {
  v1::Generation generation;
  generation.set_id(kGen);
  generation.set_model("fake");
  generation.set_last_seq(4);
  generation.set_status(done ? v1::GENERATION_STATUS_DONE : v1::GENERATION_STATUS_RUNNING);
  generation.add_choices()->set_text("Hello");
  generation.set_annotation(openai::ParseResponsesRequest(R"({"model":"m","input":"hi"})")->request.annotation());
  if (done) generation.mutable_done()->add_choices()->set_finish_reason(v1::FINISH_REASON_STOP);
  return generation;
}

TEST(Head, IsServedLikeGetWithoutAttaching) {
  SseHarness harness;
  std::atomic<bool> done = false;
  testing::FakeInferenceService::Handlers handlers;
  handlers.get = [&](const std::string& id) -> absl::StatusOr<v1::Generation> {
    if (id != kGen) return absl::NotFoundError("no such generation");
    return Kept(done);
  };
  handlers.list_models = []() -> absl::StatusOr<v1::ListModelsResponse> {
    v1::ListModelsResponse response;
    response.add_models()->set_id("m");
    return response;
  };
  harness.service.SetHandlers(handlers);

  for (const std::string& target : {std::string("/"), std::string("/config.json"), std::string("/health"),
                                    std::string("/v1/models"), std::string("/v1/models/m"), kPath, kResponse}) {
    const auto head = harness.Ask("HEAD", target);
    const auto get = harness.Ask("GET", target);
    EXPECT_EQ(head.head.status, 200) << target;
    EXPECT_EQ(head.body, "");
    EXPECT_EQ(head.head.headers.at("content-length"), std::to_string(get.body.size())) << target;
    EXPECT_EQ(head.head.headers.at("content-type"), get.head.headers.at("content-type")) << target;
  }
  struct Row {
    std::string target;
    bool done;
    int status;
  };
  const std::vector<Row> rows = {
      {kPath + "/events", false, 200},
      {kPath + "/events?after=4", false, 200},
      {kPath + "/events?after=3", true, 200},
      {kPath + "/events?after=4", true, 204},
      {kPath + "/events?after=9", true, 200},
      {kPath + "/events?after=9&on_gap=fail", false, 410},
      {kPath + "/events?after=x", false, 400},
      {"/v1/generations/" + FakeId('b') + "/events", false, 404},
      {kResponse + "?stream=true", false, 200},
      {kResponse + "?stream=true&starting_after=9", true, 200},
      {kResponse + "?stream=true&starting_after=10", true, 400},
      {kResponse + "?stream=true&starting_after=7", false, 400},
  };
  for (const Row& row : rows) {
    done = row.done;
    const auto head = harness.Ask("HEAD", row.target);
    EXPECT_EQ(head.head.status, row.status) << row.target;
    EXPECT_EQ(head.body, "");
    if (row.status != 200) continue;
    EXPECT_EQ(head.head.headers.at("content-type"), kStream);
    EXPECT_EQ(head.head.headers.at("x-generation-id"), kGen);
    EXPECT_EQ(head.head.headers.count("content-length"), 0u) << row.target;
  }
  EXPECT_EQ(harness.service.pending_commands(), 0u);
}

TEST(Head, KeepsTheConnection) {
  SseHarness harness;
  testing::FakeInferenceService::Handlers handlers;
  handlers.get = [](const std::string&) -> absl::StatusOr<v1::Generation> { return Kept(false); };
  harness.service.SetHandlers(handlers);
  const auto client = harness.Connect();
  for (const std::string& target : {kPath + "/events", kPath, kResponse + "?stream=true"}) {
    ASSERT_TRUE(client->Request("HEAD", target).ok());
    EXPECT_EQ(client->ReadResponseTo("HEAD")->head.status, 200) << target;
  }
}

TEST(Health, NeedsNoKeyAndReportsReadiness) {
  SseOptions options = SseHarness::QuickOptions();
  options.bridge.api_keys = {{"right", "ann"}};
  SseHarness harness(options);
  auto response = harness.Ask("GET", "/health");
  EXPECT_EQ(response.head.status, 200);
  EXPECT_EQ(response.body, R"({"status":"ok"})");
  EXPECT_EQ(harness.Ask("POST", "/health").head.headers.at("allow"), "GET, HEAD, OPTIONS");
  harness.server->BeginDrain();
  response = harness.Ask("GET", "/health");
  EXPECT_EQ(response.head.status, 503);
  EXPECT_EQ(response.body, R"({"error":{"message":"draining","type":"server_error","param":null,"code":"not_ready"}})");
  EXPECT_EQ(harness.Ask("HEAD", "/health").head.status, 503);
}

TEST(Paths, OfOpenAiAreServedWithoutTheirVersion) {
  SseHarness harness;
  EXPECT_EQ(harness.Ask("POST", "/chat/completions", "", "{}").head.status, 400);
  EXPECT_EQ(harness.Ask("GET", "/completions").head.headers.at("allow"), "POST, OPTIONS");
  EXPECT_EQ(harness.Ask("POST", "/responses", "", "{}").head.status, 400);
  const auto client = harness.Connect();
  ASSERT_TRUE(
      client->Request("POST", "/chat/completions", "", R"({"model":"m","messages":[{"role":"user","content":"x"}]})")
          .ok());
  const auto command = harness.service.NextCommand();
  ASSERT_TRUE(command && command->request.has_generate());
  EXPECT_EQ(command->request.generate().request().messages(0).content(), "x");
}

TEST(Paths, ThatDoNotExistNameTheApi) {
  SseHarness harness;
  for (const char* path : {"/tokenize", "/api/chat", "/openai/deployments/m/chat/completions?api-version=1",
                           "/v1/embeddings", "/v1/v1/chat/completions", "/generations", "/none.html", "/v1"}) {
    for (const char* method : {"GET", "POST", "PUT", "DELETE"}) {
      const auto response = harness.Ask(method, path, "", std::string_view(method) == "POST" ? "{}" : "");
      EXPECT_EQ(response.head.status, 404) << method << " " << path;
      EXPECT_EQ(json::parse(response.body)["error"]["message"], kNoSuchPath);
    }
  }
}

TEST(Keys, MayFollowSeveralBlanks) {
  SseOptions options = SseHarness::QuickOptions();
  options.bridge.api_keys = {{"right", "ann"}};
  SseHarness harness(options);
  EXPECT_EQ(harness.Ask("POST", "/v1/responses", "Authorization: Bearer    right\r\n", "{}").head.status, 400);
  const auto response = harness.Ask("POST", "/v1/responses", "x-api-key: right\r\n", "{}");
  EXPECT_EQ(response.head.status, 401);
  EXPECT_NE(response.body.find("Authorization: Bearer KEY"), std::string::npos);
}

TEST(Rejections, OfSchemasAreNamedAsTheRouteNamesThem) {
  struct Row {
    const char* path;
    const char* body;
    const char* param;
  };
  const Row rows[] = {
      {"/v1/chat/completions", R"({"model":"m","messages":[{"role":"user","content":"hi"}]})",
       "response_format.json_schema"},
      {"/v1/completions", R"({"model":"m","prompt":"p"})", "response_format.json_schema"},
      {"/v1/responses", R"({"model":"m","input":"hi"})", "text.format.schema"},
  };
  for (const Row& row : rows) {
    SseHarness harness;
    const auto client = harness.Connect();
    ASSERT_TRUE(client->Request("POST", row.path, "", row.body).ok());
    harness.service.Reject(*harness.service.NextCommand(), base::InvalidField("output_format.json_schema", "no"));
    const json error = json::parse(client->ReadResponse()->body)["error"];
    EXPECT_EQ(error["param"], row.param);
    EXPECT_EQ(error["message"], std::string(row.param) + ": no");
  }
}

TEST(Rejections, OfFieldsByAnEngineKeepTheirNamesAndCode) {
  SseHarness harness;
  const auto client = harness.Connect();
  // The name of a native field that OpenAI's API does not have.
  ASSERT_TRUE(client
                  ->Request("POST", "/v1/chat/completions", "",
                            R"({"model":"m","messages":[{"role":"user","content":"hi"}],"choice_count":2})")
                  .ok());
  const auto command = harness.service.NextCommand();
  ASSERT_TRUE(command.has_value());
  EXPECT_EQ(command->request.generate().request().extra_fields().at("choice_count"), "2");
  base::ErrorDetail detail;
  detail.reason = "UNSUPPORTED_PARAMETER";
  detail.field = "choice_count";
  harness.service.Reject(*command, base::MakeError(absl::StatusCode::kInvalidArgument, "choice_count: no", detail));
  EXPECT_EQ(client->ReadResponse()->body,
            R"({"error":{"message":"choice_count: no","type":"invalid_request_error","param":"choice_count",)"
            R"("code":"unsupported_parameter"}})");
}

}  // namespace
}  // namespace runnel::sse
