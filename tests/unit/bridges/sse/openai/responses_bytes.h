#pragma once

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "bridges/openai/responses_request.h"
#include "tests/unit/bridges/sse/sse_harness.h"

// The bytes of /v1/responses that clients parse, for the generation `kGen`, which says "Hello".
namespace runnel::sse {

inline const std::string kGen = FakeId('a');
inline const std::string kRandom(26, 'a');
inline const std::string kPath = "/v1/responses";
inline const std::string kOne = kPath + "/resp_" + kRandom;

inline std::string Part(const std::string& text) {
  return R"({"type":"output_text","text":")" + text + R"(","annotations":[]})";
}
inline std::string Item(const std::string& status, const std::string& content) {
  return R"({"id":"msg_)" + kRandom + R"(","type":"message","status":")" + status +
         R"(","role":"assistant","content":[)" + content + "]}";
}
struct ResponseFields {
  std::string status = "in_progress";
  std::string output = "";
  std::string error = "null";
  std::string incomplete = "null";
  std::string background = "false";
  std::string usage = "null";
};
inline std::string Response(const ResponseFields& fields) {
  return R"({"id":"resp_)" + kRandom + R"(","object":"response","created_at":1795410000,"status":")" + fields.status +
         R"(","error":)" + fields.error + R"(,"incomplete_details":)" + fields.incomplete +
         R"(,"instructions":"be brief","metadata":{"k":"v"},"model":"fake","output":[)" + fields.output +
         R"(],"parallel_tool_calls":true,"temperature":0.5,"top_p":1,"tool_choice":"auto","tools":[],"max_output_tokens":7,"text":{"format":{"type":"text"}},"truncation":"disabled","reasoning":{"effort":null,"summary":null},"service_tier":"auto","store":true,"previous_response_id":null,"background":)" +
         fields.background + R"(,"usage":)" + fields.usage + "}";
}
inline std::string Usage(int output) {
  return R"({"input_tokens":9,"input_tokens_details":{"cached_tokens":0,"cache_write_tokens":0},"output_tokens":)" +
         std::to_string(output) + R"(,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":)" +
         std::to_string(9 + output) + "}";
}
inline std::string Event(const std::string& type, int number, const std::string& rest) {
  return "event: " + type + "\ndata: {\"type\":\"" + type + "\",\"sequence_number\":" + std::to_string(number) + "," +
         rest + "}\n\n";
}
inline const std::string kPlace = R"("item_id":"msg_)" + kRandom + R"(","output_index":0,"content_index":0)";

inline std::string Body(const std::string& more = "") {
  return R"({"model":"m","input":"hi","instructions":"be brief","metadata":{"k":"v"},"temperature":0.5,"max_output_tokens":7)" +
         more + "}";
}
inline std::string Annotation(const std::string& more = "") {
  return openai::ParseResponsesRequest(Body(more))->request.annotation();
}

inline std::vector<std::string> WholeStream() {
  return {
      Event("response.created", 0, "\"response\":" + Response({})),
      Event("response.in_progress", 1, "\"response\":" + Response({})),
      Event("response.output_item.added", 2, "\"output_index\":0,\"item\":" + Item("in_progress", "")),
      Event("response.content_part.added", 3, kPlace + ",\"part\":" + Part("")),
      Event("response.output_text.delta", 4, kPlace + R"(,"delta":"Hel","logprobs":[])"),
      Event("response.output_text.delta", 5, kPlace + R"(,"delta":"lo","logprobs":[])"),
      Event("response.output_text.done", 6, kPlace + R"(,"text":"Hello","logprobs":[])"),
      Event("response.content_part.done", 7, kPlace + ",\"part\":" + Part("Hello")),
      Event("response.output_item.done", 8, "\"output_index\":0,\"item\":" + Item("completed", Part("Hello"))),
      Event("response.completed", 9,
            "\"response\":" +
                Response({.status = "completed", .output = Item("completed", Part("Hello")), .usage = Usage(2)})),
  };
}
inline std::string From(size_t first) {
  std::string text;
  const auto events = WholeStream();
  for (size_t i = first; i < events.size(); ++i) text += events[i];
  return text;
}

inline void Attach(SseHarness* harness, const testing::FakeInferenceService::Command& command,
                   const std::string& annotation, bool existing, uint64_t last_seq = 0,
                   v1::GenerationStatus status = v1::GENERATION_STATUS_RUNNING) {
  v1::LinkResponse response;
  auto* reply = response.add_replies();
  reply->set_attachment(command.attachment());
  reply->mutable_attached()->set_generation_id(kGen);
  reply->mutable_attached()->set_model("fake");
  reply->mutable_attached()->set_status(status);
  reply->mutable_attached()->set_existing(existing);
  reply->mutable_attached()->set_last_seq(last_seq);
  reply->mutable_attached()->set_annotation(annotation);
  harness->service.Send(command.link, std::move(response));
}

inline testing::HttpStreamClient::Response Ask(SseHarness* harness, const std::string& method,
                                               const std::string& target, const std::string& body,
                                               const std::string& annotation, std::vector<v1::GenerationEvent> events) {
  const auto client = harness->Connect();
  EXPECT_TRUE(client->Request(method, target, "", body).ok());
  const auto command = harness->service.NextCommand();
  if (!command.has_value()) return {};
  EXPECT_TRUE(command->request.generate().unmerged() || command->request.attach().unmerged() ||
              body.find("\"stream\":true") == std::string::npos);
  // The events that the log already has, for an existing generation.
  const bool existing = command->request.has_attach();
  const v1::GenerationEvent& last = events.back();
  const auto status = !existing || last.has_delta() ? v1::GENERATION_STATUS_RUNNING
                      : last.has_done()             ? v1::GENERATION_STATUS_DONE
                                                    : v1::GENERATION_STATUS_FAILED;
  Attach(harness, *command, annotation, existing, existing ? last.seq() : 0, status);
  harness->service.SendEvents(*command, std::move(events));
  auto response = client->ReadResponse();
  return response.ok() ? *std::move(response) : testing::HttpStreamClient::Response{};
}

inline std::vector<v1::GenerationEvent> Hello() {
  return {StartedEvent(), DeltaEvent(2, "Hel"), DeltaEvent(3, "lo"), DoneEvent(4, "Hello")};
}

inline v1::GenerationEvent DoneFor(uint64_t seq, v1::FinishReason reason) {
  v1::GenerationEvent event = DoneEvent(seq, "");
  event.mutable_done()->mutable_choices(0)->set_finish_reason(reason);
  return event;
}

// "Hel" and "lo" again, each with the log-probability of its one token.
inline std::vector<v1::GenerationEvent> HelloWithLogprobs() {
  std::vector<v1::GenerationEvent> events = Hello();
  for (size_t i : {1, 2}) {
    v1::Delta* delta = events[i].mutable_delta();
    v1::TokenLogprob* token = delta->add_logprobs();
    token->set_token(delta->text());
    token->set_logprob(-0.5f);
    *token->add_top() = *token;
  }
  return events;
}
inline const std::string kHel =
    R"({"token":"Hel","logprob":-0.5,"bytes":[72,101,108],"top_logprobs":[{"token":"Hel","logprob":-0.5,"bytes":[72,101,108]}]})";
inline const std::string kLo =
    R"({"token":"lo","logprob":-0.5,"bytes":[108,111],"top_logprobs":[{"token":"lo","logprob":-0.5,"bytes":[108,111]}]})";
inline const std::string kWithLogprobs = R"(,"include":["message.output_text.logprobs"],"top_logprobs":1)";

inline std::string HelloPart(const std::string& logprobs) {
  return R"({"type":"output_text","text":"Hello","annotations":[],"logprobs":[)" + logprobs + "]}";
}
inline std::string WithTop(std::string response) {
  const std::string top_p = R"("top_p":1,)";
  return response.insert(response.find(top_p) + top_p.size(), R"("top_logprobs":1,)");
}

inline std::vector<std::string> StreamWithLogprobs() {
  std::vector<std::string> events = WholeStream();
  const std::string part = HelloPart(kHel + "," + kLo);
  events[0] = Event("response.created", 0, "\"response\":" + WithTop(Response({})));
  events[1] = Event("response.in_progress", 1, "\"response\":" + WithTop(Response({})));
  events[4] = Event("response.output_text.delta", 4, kPlace + R"(,"delta":"Hel","logprobs":[)" + kHel + "]");
  events[5] = Event("response.output_text.delta", 5, kPlace + R"(,"delta":"lo","logprobs":[)" + kLo + "]");
  events[6] =
      Event("response.output_text.done", 6, kPlace + R"(,"text":"Hello","logprobs":[)" + kHel + "," + kLo + "]");
  events[7] = Event("response.content_part.done", 7, kPlace + ",\"part\":" + part);
  events[8] = Event("response.output_item.done", 8, "\"output_index\":0,\"item\":" + Item("completed", part));
  events[9] =
      Event("response.completed", 9,
            "\"response\":" +
                WithTop(Response({.status = "completed", .output = Item("completed", part), .usage = Usage(2)})));
  return events;
}

}  // namespace runnel::sse
