// Tools, calls, images and reasoning in requests.
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/base/grpc_status.h"
#include "services/base/request_limits.h"
#include "services/inference/rpc/request_from_proto.h"

namespace runnel::inference {
namespace {

absl::StatusOr<GenerationRequest> Convert(const v1::GenerateRequest& proto) {
  return RequestFromProto(proto, RequestDefaults(), {{"m", "upstream", 0, absl::UnixEpoch()}});
}

void AddTool(v1::GenerateRequest* request, const std::string& name, const std::string& parameters = "") {
  v1::Tool* const tool = request->add_tools();
  tool->set_name(name);
  tool->set_parameters(parameters);
}

v1::ChatMessage* AddMessage(v1::GenerateRequest* request, v1::ChatRole role) {
  v1::ChatMessage* const message = request->add_messages();
  message->set_role(role);
  return message;
}

// Messages 0 to 3: user, assistant with a call, tool, user with an image; and two tools.
v1::GenerateRequest Valid() {
  v1::GenerateRequest request;
  AddMessage(&request, v1::CHAT_ROLE_USER)->set_content("hi");
  v1::ChatMessage* const assistant = AddMessage(&request, v1::CHAT_ROLE_ASSISTANT);
  assistant->set_reasoning("hm");
  v1::CalledTool* const call = assistant->add_tool_calls();
  call->set_id("a");
  call->set_name("f");
  call->set_arguments("{");
  v1::ChatMessage* const result = AddMessage(&request, v1::CHAT_ROLE_TOOL);
  result->set_tool_call_id("a");
  result->add_parts()->set_text("sun");
  result->add_parts()->set_text("ny");
  v1::ChatMessage* const user = AddMessage(&request, v1::CHAT_ROLE_USER);
  user->add_parts()->set_text("and this?");
  v1::Image* const image = user->add_parts()->mutable_image();
  image->set_data("\x01\x02\xFF");
  image->set_media_type("image/png");
  image->set_detail("low");
  AddTool(&request, "f", R"({"type":"object"})");
  AddTool(&request, "g");
  request.set_reasoning_effort("low");
  return request;
}

v1::Image* ImageOf(v1::GenerateRequest* request) {
  return request->mutable_messages(3)->mutable_parts(1)->mutable_image();
}

std::string Nested(int depth) {
  std::string schema;
  for (int i = 0; i < depth; ++i) schema += R"({"a":)";
  return schema + "1" + std::string(static_cast<size_t>(depth), '}');
}

TEST(RequestTools, KeepsWhatIsSet) {
  v1::GenerateRequest proto = Valid();
  proto.mutable_tools(0)->set_description("Finds.");
  proto.mutable_tools(0)->set_strict(false);
  proto.mutable_tool_choice()->set_mode(v1::TOOL_CHOICE_MODE_REQUIRED);
  proto.mutable_tool_choice()->add_allowed("g");
  proto.set_parallel_tool_calls(false);
  const auto request = Convert(proto);
  ASSERT_TRUE(request.ok()) << request.status();
  ASSERT_EQ(request->tools.size(), 2u);
  EXPECT_EQ(request->tools[0].description, "Finds.");
  EXPECT_EQ(request->tools[0].parameters, R"({"type":"object"})");
  EXPECT_EQ(request->tools[0].strict, false);
  EXPECT_EQ(request->tools[1].strict, std::nullopt);
  EXPECT_EQ(request->tool_choice->mode, ToolChoice::Mode::kRequired);
  EXPECT_EQ(request->tool_choice->allowed, std::vector<std::string>{"g"});
  EXPECT_EQ(request->parallel_tool_calls, false);
  EXPECT_EQ(request->reasoning_effort, "low");
  ASSERT_EQ(request->messages.size(), 4u);
  EXPECT_EQ(request->messages[1].reasoning, "hm");
  EXPECT_EQ(request->messages[1].tool_calls.at(0).arguments, "{");
  EXPECT_EQ(request->messages[2].role, ChatRole::kTool);
  EXPECT_EQ(request->messages[2].tool_call_id, "a");
  // Text in pieces is text.
  EXPECT_EQ(request->messages[2].content, "sunny");
  EXPECT_TRUE(request->messages[2].parts.empty());
  ASSERT_EQ(request->messages[3].parts.size(), 2u);
  EXPECT_EQ(request->messages[3].parts[0].value, "and this?");
  EXPECT_EQ(request->messages[3].parts[1].value, "data:image/png;base64,AQL/");
  EXPECT_EQ(request->messages[3].parts[1].detail, "low");
}

TEST(RequestTools, AcceptsImagesOfTheListOnly) {
  const std::pair<std::string, bool> rows[] = {
      {"data:image/png;base64,AA==", true},
      {"data:image/jpeg;base64,", true},
      {"DATA:Image/WebP;charset=x;BASE64,AA", true},
      {"data:image/gif;base64,not base64!", true},  // opaque
      {"data:image/svg+xml;base64,AA", false},
      {"data:text/html;base64,AA", false},
      {"data:image/png,AA", false},
      {"data:image/png;base64", false},
      {"data:;base64,AA", false},
      {"image/png;base64,AA", false},
      {"https://example.com/a.png", false},
      {"http://169.254.169.254/latest?data:image/png;base64,AA", false},
      {"file:///etc/passwd", false},
      {"", false},
      {"data:image/png;" + std::string(200, 'x') + ";base64,AA", false},
      {std::string("data:image/png\0;base64,AA", 24), false},
  };
  for (const auto& [url, accepted] : rows) {
    v1::GenerateRequest proto = Valid();
    ImageOf(&proto)->set_data_url(url);
    EXPECT_EQ(Convert(proto).ok(), accepted) << url;
  }
}

TEST(RequestTools, AcceptsWhatIsAtTheLimits) {
  v1::GenerateRequest proto = Valid();
  proto.clear_tools();
  proto.mutable_messages(1)->clear_tool_calls();
  for (size_t i = 0; i < base::kMaxTools; ++i) AddTool(&proto, absl::StrCat(i));
  proto.mutable_tools(0)->set_name(std::string(base::kMaxCallNameBytes, 'n'));
  proto.mutable_tools(0)->set_parameters(Nested(base::kMaxSchemaDepth));
  proto.mutable_tools(1)->set_parameters("{}" + std::string(base::kMaxToolSchemaBytes - 2, ' '));
  for (uint32_t i = 0; i < base::kMaxToolCalls; ++i) {
    v1::CalledTool* const call = proto.mutable_messages(1)->add_tool_calls();
    call->set_id(absl::StrCat(i));
    call->set_name("f");
  }
  v1::ChatMessage* const user = AddMessage(&proto, v1::CHAT_ROLE_USER);
  for (size_t i = 0; i < base::kMaxContentParts; ++i) user->add_parts()->set_text("x");
  proto.set_reasoning_effort(std::string(base::kMaxReasoningEffortBytes, 'x'));
  size_t bytes = 0;
  for (const v1::Tool& tool : proto.tools()) bytes += tool.name().size() + tool.parameters().size();
  proto.mutable_tools(2)->set_description(std::string(base::kMaxToolsBytes - bytes, 'd'));
  EXPECT_TRUE(Convert(proto).ok()) << Convert(proto).status();
  proto.mutable_tools(2)->mutable_description()->push_back('d');
  EXPECT_EQ(base::DetailOf(Convert(proto).status()).field, "tools");
}

TEST(RequestTools, RejectsHostileValuesAndNamesTheField) {
  const struct {
    const char* field;
    std::function<void(v1::GenerateRequest*)> spoil;
  } rows[] = {
      {"tools",
       [](auto* r) {
         for (int i = 0; i < 10'000; ++i) AddTool(r, absl::StrCat(i));
       }},
      {"tools[2].parameters", [](auto* r) { AddTool(r, "h", "{}" + std::string(base::kMaxToolSchemaBytes, ' ')); }},
      {"tools", [](auto* r) { AddTool(r, "h", "{\"a\":\"" + std::string(1 << 20, 'x') + "\"}"); }},
      {"tools[2].parameters", [](auto* r) { AddTool(r, "h", Nested(base::kMaxSchemaDepth + 1)); }},
      {"tools[2].parameters", [](auto* r) { AddTool(r, "h", std::string(60'000, '[')); }},
      {"tools[2].parameters", [](auto* r) { AddTool(r, "h", "true"); }},
      {"tools[2].parameters", [](auto* r) { AddTool(r, "h", "{}{}"); }},
      {"tools[2].parameters", [](auto* r) { AddTool(r, "h", "{},\"model\":\"x\""); }},
      {"tools[2].parameters", [](auto* r) { AddTool(r, "h", std::string("{}\0", 3)); }},
      {"tools[2].name", [](auto* r) { AddTool(r, ""); }},
      {"tools[2].name", [](auto* r) { AddTool(r, "a\nb"); }},
      {"tools[2].name", [](auto* r) { AddTool(r, std::string(257, 'n')); }},
      {"tools[2].name", [](auto* r) { AddTool(r, "f"); }},
      {"tools", [](auto* r) { r->clear_messages(), r->set_prompt("p"), r->clear_reasoning_effort(); }},
      {"reasoning_effort", [](auto* r) { r->clear_messages(), r->set_prompt("p"), r->clear_tools(); }},
      {"reasoning_effort", [](auto* r) { r->set_reasoning_effort(std::string(33, 'x')); }},
      {"reasoning_effort", [](auto* r) { r->set_reasoning_effort("low\""); }},
      {"tool_choice.mode", [](auto* r) { r->mutable_tool_choice()->set_mode(static_cast<v1::ToolChoiceMode>(99)); }},
      {"tool_choice.mode",
       [](auto* r) { r->clear_tools(), r->mutable_tool_choice()->set_mode(v1::TOOL_CHOICE_MODE_REQUIRED); }},
      {"tool_choice.name", [](auto* r) { r->mutable_tool_choice()->set_mode(v1::TOOL_CHOICE_MODE_NAMED); }},
      {"tool_choice.name",
       [](auto* r) {
         r->mutable_tool_choice()->set_mode(v1::TOOL_CHOICE_MODE_NAMED);
         r->mutable_tool_choice()->set_name("h");
       }},
      {"tool_choice.name", [](auto* r) { r->mutable_tool_choice()->set_name("f"); }},
      {"tool_choice.allowed[1]",
       [](auto* r) { r->mutable_tool_choice()->add_allowed("f"), r->mutable_tool_choice()->add_allowed("h"); }},
      {"tool_choice.allowed",
       [](auto* r) {
         r->mutable_tool_choice()->set_mode(v1::TOOL_CHOICE_MODE_NONE);
         r->mutable_tool_choice()->add_allowed("f");
       }},
      {"tool_choice.allowed",
       [](auto* r) {
         for (int i = 0; i < 10'000; ++i) r->mutable_tool_choice()->add_allowed("f");
       }},
      {"messages[0].role", [](auto* r) { r->mutable_messages(0)->set_role(static_cast<v1::ChatRole>(99)); }},
      {"messages[0].tool_calls", [](auto* r) { r->mutable_messages(0)->add_tool_calls(); }},
      {"messages[0].reasoning", [](auto* r) { r->mutable_messages(0)->set_reasoning("x"); }},
      {"messages[0].tool_call_id", [](auto* r) { r->mutable_messages(0)->set_tool_call_id("x"); }},
      {"messages[1].tool_calls",
       [](auto* r) {
         for (int i = 0; i < 100'000; ++i) r->mutable_messages(1)->add_tool_calls();
       }},
      {"messages[1].tool_calls[0].id", [](auto* r) { r->mutable_messages(1)->mutable_tool_calls(0)->clear_id(); }},
      {"messages[1].tool_calls[0].name",
       [](auto* r) { r->mutable_messages(1)->mutable_tool_calls(0)->set_name("\x7F"); }},
      {"messages[2].tool_call_id", [](auto* r) { r->mutable_messages(2)->clear_tool_call_id(); }},
      {"messages[2].tool_call_id", [](auto* r) { r->mutable_messages(2)->set_tool_call_id(std::string(257, 'x')); }},
      {"messages[2].parts", [](auto* r) { r->mutable_messages(2)->set_content("x"); }},
      {"messages[2].parts",
       [](auto* r) {
         for (int i = 0; i < 1025; ++i) r->mutable_messages(2)->add_parts()->set_text("x");
       }},
      {"messages[3].parts[2]", [](auto* r) { r->mutable_messages(3)->add_parts(); }},
      {"messages[3].parts[2].refusal", [](auto* r) { r->mutable_messages(3)->add_parts()->set_refusal("x"); }},
      {"messages[3].parts[1].image", [](auto* r) { ImageOf(r)->clear_data(); }},
      {"messages[3].parts[1].image", [](auto* r) { r->mutable_messages(3)->set_role(v1::CHAT_ROLE_SYSTEM); }},
      {"messages[3].parts[1].image.media_type", [](auto* r) { ImageOf(r)->set_media_type("image/svg+xml"); }},
      {"messages[3].parts[1].image.data_url", [](auto* r) { ImageOf(r)->set_data_url("https://example.com/"); }},
      {"messages[3].parts[1].image.detail", [](auto* r) { ImageOf(r)->set_detail("low\""); }},
      {"messages[3].parts[1].image.detail", [](auto* r) { ImageOf(r)->set_detail(std::string(17, 'x')); }},
  };
  ASSERT_TRUE(Convert(Valid()).ok()) << Convert(Valid()).status();
  for (const auto& row : rows) {
    v1::GenerateRequest proto = Valid();
    row.spoil(&proto);
    const absl::Status status = Convert(proto).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << row.field << ": " << status;
    EXPECT_EQ(base::DetailOf(status).field, row.field) << status;
    EXPECT_EQ(base::DetailOf(status).reason, "INVALID_FIELD") << row.field;
    EXPECT_LT(status.message().size(), 500u);
  }
}

}  // namespace
}  // namespace runnel::inference
