#include "bridges/openai/responses_history.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "bridges/openai/openai_error.h"

namespace runnel::openai {
namespace {

constexpr size_t kMany = 1 << 20;

std::string Random(char letter) { return std::string(26, letter); }

std::string AnnotationOf(const std::string& more) {
  return ParseResponsesRequest(R"({"model":"m","input":"x")" + more + "}")->request.annotation();
}

v1::Generation Ended(char letter, const std::string& text, const std::string& more = "") {
  v1::Generation generation;
  generation.set_id("gen_" + Random(letter));
  generation.set_annotation(AnnotationOf(more));
  generation.add_choices()->set_text(text);
  generation.mutable_done()->add_choices()->set_finish_reason(v1::FINISH_REASON_STOP);
  return generation;
}

void AddPart(v1::Generation* generation, v1::PartKind kind, const std::string& content, bool complete = true) {
  v1::ChoiceText* choice = generation->mutable_choices(0);
  const auto index = static_cast<uint32_t>(choice->parts_size());
  v1::PartText* part = choice->add_parts();
  part->set_index(index);
  part->set_kind(kind);
  part->set_content(content);
  v1::PartEnd* end = generation->mutable_done()->mutable_choices(0)->add_parts();
  end->set_index(index);
  end->set_kind(kind);
  if (kind != v1::PART_KIND_TOOL_CALL) return;
  part->set_id("call_" + std::to_string(index));
  part->set_name("f");
  end->set_complete(complete);
}

// Reasoning, text, a call that is complete and one that is not.
v1::Generation EndedWithParts(char letter, const std::string& more = "") {
  v1::Generation generation = Ended(letter, "Let me see.", more);
  AddPart(&generation, v1::PART_KIND_REASONING, "hm");
  AddPart(&generation, v1::PART_KIND_TEXT, "Let me see.");
  AddPart(&generation, v1::PART_KIND_TOOL_CALL, "{}");
  AddPart(&generation, v1::PART_KIND_TOOL_CALL, "{\"x", /*complete=*/false);
  return generation;
}

std::string Kept(const std::vector<std::pair<v1::ChatRole, std::string>>& messages) {
  v1::KeptInput input;
  for (const auto& [role, content] : messages) {
    v1::ChatMessage* message = input.add_messages();
    message->set_role(role);
    message->set_content(content);
  }
  return input.SerializeAsString();
}

// role:content, with reasoning and calls.
std::vector<std::string> Shown(const v1::GenerateRequest& request) {
  std::vector<std::string> shown;
  for (const v1::ChatMessage& message : request.messages()) {
    std::string line = v1::ChatRole_Name(message.role()).substr(10) + ":" + message.content();
    if (!message.reasoning().empty()) line += " (" + message.reasoning() + ")";
    for (const v1::CalledTool& call : message.tool_calls()) line += " " + call.id() + call.arguments();
    if (!message.tool_call_id().empty()) line += " for " + message.tool_call_id();
    shown.push_back(line);
  }
  return shown;
}

ResponsesRequest Parsed(const std::string& fields) {
  auto result = ParseResponsesRequest(R"({"model":"m",)" + fields + "}");
  EXPECT_TRUE(result.ok()) << result.status();
  return result.ok() ? *std::move(result) : ResponsesRequest();
}

std::string Previous(char letter) { return R"("previous_response_id":"resp_)" + Random(letter) + "\""; }

void ExpectError(const absl::Status& status, int code, const std::string& param, const std::string& says) {
  const bridge::HttpError error = OpenAiErrorOf(status, OpenAiApi::kResponses);
  EXPECT_EQ(error.status, code) << status;
  EXPECT_EQ(error.param, param);
  EXPECT_NE(error.message.find(says), std::string::npos) << error.message;
}

TEST(ResponsesHistory, ContinuesAConversation) {
  ResponsesRequest body = Parsed(R"("instructions":"now","input":"three",)" + Previous('b'));
  EXPECT_EQ(body.request.keep_last_messages(), 1u);
  EarlierConversation earlier(&body, kMany);
  EXPECT_EQ(earlier.next(), "gen_" + Random('b'));
  ASSERT_TRUE(earlier.Add(Ended('b', "2", "," + Previous('a')), Kept({{v1::CHAT_ROLE_USER, "two"}})).ok());
  EXPECT_EQ(earlier.next(), "gen_" + Random('a'));
  // Without its instructions, which are not kept.
  ASSERT_TRUE(earlier
                  .Add(Ended('a', "1", R"(,"instructions":"then")"),
                       Kept({{v1::CHAT_ROLE_USER, "zero"}, {v1::CHAT_ROLE_USER, "one"}}))
                  .ok());
  EXPECT_EQ(earlier.next(), "");
  earlier.Finish();
  EXPECT_EQ(Shown(body.request), (std::vector<std::string>{"SYSTEM:now", "USER:zero", "USER:one", "ASSISTANT:1",
                                                           "USER:two", "ASSISTANT:2", "USER:three"}));
  EXPECT_EQ(body.request.keep_last_messages(), 1u);
  const auto echo = ResponseEcho::FromAnnotation(body.request.annotation());
  EXPECT_EQ(echo->previous_response_id, "\"resp_" + Random('b') + "\"");
}

TEST(ResponsesHistory, HasTheCallsOfAResponseInOneTurn) {
  ResponsesRequest body =
      Parsed(R"("input":[{"type":"function_call_output","call_id":"call_2","output":"r"}],)" + Previous('a'));
  EarlierConversation earlier(&body, kMany);
  ASSERT_TRUE(earlier.Add(EndedWithParts('a'), Kept({{v1::CHAT_ROLE_USER, "go"}})).ok());
  earlier.Finish();
  EXPECT_EQ(Shown(body.request),
            (std::vector<std::string>{"USER:go", "ASSISTANT:Let me see. (hm) call_2{}", "TOOL:r for call_2"}));
  // A client that responds to a call that was cut needs it.
  body = Parsed(R"("input":[{"type":"function_call_output","call_id":"call_3","output":"not JSON"}],)" + Previous('a'));
  EarlierConversation other(&body, kMany);
  ASSERT_TRUE(other.Add(EndedWithParts('a'), Kept({{v1::CHAT_ROLE_USER, "go"}})).ok());
  other.Finish();
  EXPECT_EQ(Shown(body.request)[1], "ASSISTANT:Let me see. (hm) call_2{} call_3{\"x");
}

TEST(ResponsesHistory, NamesWhatIsMissing) {
  const std::string suggestion = "store: false";
  ResponsesRequest body = Parsed(R"("input":"x",)" + Previous('a'));
  const auto add = [&](const v1::Generation& generation, const std::string& input) {
    EarlierConversation earlier(&body, kMany);
    return earlier.Add(generation, input);
  };
  const std::string kept = Kept({{v1::CHAT_ROLE_USER, "x"}});
  v1::Generation running = Ended('a', "1");
  running.clear_done();
  v1::Generation native = Ended('a', "1");
  native.set_annotation("mine");
  for (const auto& status :
       {add(Ended('a', "1"), ""), add(Ended('a', "1"), "\xff"), add(native, kept),
        add(Ended('a', "1", R"(,"store":false)"), kept), EarlierConversation(&body, kMany).Missing()}) {
    ExpectError(status, 404, "previous_response_id", "resp_" + Random('a'));
    ExpectError(status, 404, "previous_response_id", suggestion);
    EXPECT_EQ(OpenAiErrorOf(status, OpenAiApi::kResponses).code, "previous_response_not_found");
  }
  ExpectError(add(running, kept), 400, "previous_response_id", "has not ended");
  // The link that is missing, not the one that the client named.
  EarlierConversation earlier(&body, kMany);
  ASSERT_TRUE(earlier.Add(Ended('a', "1", "," + Previous('b')), kept).ok());
  ExpectError(earlier.Missing(), 404, "previous_response_id", "resp_" + Random('b'));
}

TEST(ResponsesHistory, IsBounded) {
  ResponsesRequest body = Parsed(R"("input":"x",)" + Previous('a'));
  EarlierConversation bytes(&body, 1000);
  ASSERT_TRUE(bytes.Add(Ended('a', std::string(400, 'x')), Kept({{v1::CHAT_ROLE_USER, std::string(400, 'y')}})).ok());
  ExpectError(bytes.Add(Ended('a', std::string(200, 'x')), Kept({{v1::CHAT_ROLE_USER, "y"}})), 400,
              "previous_response_id", "more than 1000 bytes");
  const std::string kept = Kept({{v1::CHAT_ROLE_USER, "y"}});
  EarlierConversation responses(&body, kMany);
  const v1::Generation generation = Ended('a', "1", "," + Previous('a'));
  for (size_t i = 0; i < kMaxEarlierResponses; ++i) ASSERT_TRUE(responses.Add(generation, kept).ok());
  ExpectError(responses.Add(generation, kept), 400, "previous_response_id", "1024 responses");
  EarlierConversation messages(&body, kMany);
  v1::KeptInput many;
  for (int i = 0; i < 4095; ++i) many.add_messages()->set_role(v1::CHAT_ROLE_USER);
  ExpectError(messages.Add(generation, many.SerializeAsString()), 400, "previous_response_id", "4096 messages");
}

TEST(ResponsesHistory, ResolvesReferences) {
  const std::string id = Random('a');
  ResponsesRequest body = Parsed(R"("instructions":"i","input":[{"role":"user","content":"go"},)"
                                 R"({"type":"item_reference","id":"rs_)" +
                                 id + R"("},{"type":"item_reference","id":"msg_)" + id + R"(_1"},{"id":"fc_)" + id +
                                 R"(_2"},{"type":"item_reference","id":"fc_)" + id +
                                 R"(_3"},{"type":"function_call_output","call_id":"call_2","output":"r"}])");
  ASSERT_EQ(body.references.size(), 4u);
  EXPECT_EQ(body.references[2].path, "input[3].id");
  const v1::Generation generation = EndedWithParts('a');
  for (const ItemReference& reference : body.references) {
    EXPECT_EQ(reference.name.generation_id, generation.id());
    ASSERT_TRUE(ResolveReference(reference, generation, &body.request).ok());
  }
  ASSERT_TRUE(FinishInput(&body).ok());
  EXPECT_EQ(Shown(body.request),
            (std::vector<std::string>{"SYSTEM:i", "USER:go", "ASSISTANT:Let me see. (hm) call_2{} call_3{\"x",
                                      "TOOL:r for call_2"}));
  EXPECT_EQ(body.request.keep_last_messages(), 3u);
  EXPECT_FALSE(CheckMessageBytes(body.request, 10).ok());
}

TEST(ResponsesHistory, NamesItemsThatAreMissing) {
  const auto resolve = [](const std::string& id, const v1::Generation& generation) {
    ResponsesRequest body = Parsed(R"("input":[{"type":"item_reference","id":")" + id + "\"}]");
    return body.references.empty() ? absl::OkStatus() : ResolveReference(body.references[0], generation, &body.request);
  };
  const std::string id = Random('a');
  EXPECT_TRUE(resolve("msg_" + id, Ended('a', "text")).ok());
  for (const auto& status :
       {resolve("rs_" + id, Ended('a', "text")), resolve("fc_" + id, Ended('a', "text")),
        resolve("msg_" + id + "_1", Ended('a', "text")), resolve("msg_" + id + "_4", EndedWithParts('a')),
        resolve("msg_" + id, EndedWithParts('a')), resolve("msg_" + id, Ended('a', "text", R"(,"store":false)")),
        ParseResponsesRequest(R"({"model":"m","input":[{"type":"item_reference","id":"msg_123"}]})").status()}) {
    ExpectError(status, 404, "input[0].id", "store: false");
    ExpectError(status, 404, "input[0].id", "there is no item ");
    EXPECT_EQ(OpenAiErrorOf(status, OpenAiApi::kResponses).code, "item_not_found");
  }
  v1::Generation running = Ended('a', "text");
  running.clear_done();
  ExpectError(resolve("msg_" + id, running), 400, "input[0].id", "has not ended");
}

TEST(ResponsesHistory, IsNotKeptWithoutStore) {
  EXPECT_EQ(Parsed(R"("instructions":"i","input":"x","store":false)").request.keep_last_messages(), 0u);
  EXPECT_TRUE(Parsed(R"("input":"x","store":false)").request.discard_stored_log());
  EXPECT_FALSE(Parsed(R"("input":"x")").request.discard_stored_log());
  EXPECT_EQ(Parsed(R"("instructions":"i","input":[{"role":"user","content":"a"},{"role":"user","content":"b"}])")
                .request.keep_last_messages(),
            2u);
}

}  // namespace
}  // namespace runnel::openai
