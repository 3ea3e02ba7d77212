// Tools, calls, their results and images in the bodies of chat/completions.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "bridges/openai/completion_request.h"
#include "bridges/openai/openai_error.h"
#include "services/base/request_limits.h"

namespace runnel::openai {
namespace {

std::string WithFields(const std::string& fields) {
  return R"({"model":"m","messages":[{"role":"user","content":"hi"}],)" + fields + "}";
}
std::string WithMessage(const std::string& message) { return R"({"model":"m","messages":[)" + message + "]}"; }
std::string WithImage(const std::string& url) {
  return WithMessage(R"({"role":"user","content":[{"type":"image_url","image_url":{"url":")" + url + R"("}}]})");
}
std::string WithParameters(const std::string& schema) {
  return WithFields(R"("tools":[{"type":"function","function":{"name":"f","parameters":)" + schema + "}}]");
}
std::string Nested(int depth) {
  std::string json = "1";
  for (int i = 0; i < depth; ++i) json = "{\"a\":" + json + "}";
  return json;
}

constexpr char kTool[] =
    R"("tools":[{"type":"function","function":{"name":"f"}},{"type":"function","function":{"name":"g"}}])";

TEST(ToolRequest, ReadsToolsAndKeepsTheOrderOfTheirSchemas) {
  const auto result = ParseChatRequest(WithFields(R"("user":{"tools":[1]},"tools" : [
      {"type":"function","function":{"parameters": {"z" : [1, {"b":"} ] \" \\"}], "a":{}}, "name":"first",
       "description":"says \"hi\"","strict":true}},
      {"type":"function","function":{"name":"é","parameters":null}}],"parallel_tool_calls":true,"reasoning_effort":"low")"));
  ASSERT_TRUE(result.ok()) << result.status();
  const v1::GenerateRequest& request = result->request;
  ASSERT_EQ(request.tools_size(), 2);
  EXPECT_EQ(request.tools(0).parameters(), R"({"z":[1,{"b":"} ] \" \\"}],"a":{}})");
  EXPECT_EQ(request.tools(0).description(), "says \"hi\"");
  EXPECT_TRUE(request.tools(0).strict());
  EXPECT_EQ(request.tools(1).name(), "é");
  EXPECT_EQ(request.tools(1).parameters(), "");
  EXPECT_FALSE(request.tools(1).has_strict());
  EXPECT_TRUE(request.parallel_tool_calls());
  EXPECT_EQ(request.reasoning_effort(), "low");
  EXPECT_FALSE(request.has_tool_choice());
}

TEST(ToolRequest, ReadsEveryToolChoice) {
  const auto choice = [](const std::string& value) {
    const auto result = ParseChatRequest(WithFields(std::string(kTool) + ",\"tool_choice\":" + value));
    EXPECT_TRUE(result.ok()) << result.status();
    return result.ok() ? result->request.tool_choice() : v1::ToolChoice();
  };
  EXPECT_EQ(choice("\"auto\"").mode(), v1::TOOL_CHOICE_MODE_UNSPECIFIED);
  EXPECT_EQ(choice("\"none\"").mode(), v1::TOOL_CHOICE_MODE_NONE);
  EXPECT_EQ(choice("\"required\"").mode(), v1::TOOL_CHOICE_MODE_REQUIRED);
  const v1::ToolChoice named = choice(R"({"type":"function","function":{"name":"g"}})");
  EXPECT_EQ(named.mode(), v1::TOOL_CHOICE_MODE_NAMED);
  EXPECT_EQ(named.name(), "g");
  const v1::ToolChoice allowed = choice(
      R"({"type":"allowed_tools","allowed_tools":{"mode":"required","tools":[{"type":"function","function":{"name":"f"}}]}})");
  EXPECT_EQ(allowed.mode(), v1::TOOL_CHOICE_MODE_REQUIRED);
  ASSERT_EQ(allowed.allowed_size(), 1);
  EXPECT_EQ(allowed.allowed(0), "f");
}

TEST(ToolRequest, ReadsCallsResultsAndReasoning) {
  const auto result = ParseChatRequest(WithMessage(R"({"role":"user","content":"q"},
      {"role":"assistant","content":null,"reasoning_content":"hm","tool_calls":[
        {"id":"a","type":"function","index":0,"function":{"name":"f","arguments":"{\"x\":"}},
        {"id":"b","type":"function","function":{"name":"g"}}]},
      {"role":"tool","tool_call_id":"a","content":"1"},
      {"role":"tool","tool_call_id":"b","content":[{"type":"text","text":"2"},
        {"type":"image_url","image_url":{"url":"data:image/webp;base64,QQ==","detail":"high"}}]})"));
  ASSERT_TRUE(result.ok()) << result.status();
  const auto& messages = result->request.messages();
  ASSERT_EQ(messages.size(), 4);
  EXPECT_EQ(messages[1].reasoning(), "hm");
  ASSERT_EQ(messages[1].tool_calls_size(), 2);
  EXPECT_EQ(messages[1].tool_calls(0).arguments(), "{\"x\":");
  EXPECT_EQ(messages[1].tool_calls(1).name(), "g");
  EXPECT_EQ(messages[2].role(), v1::CHAT_ROLE_TOOL);
  EXPECT_EQ(messages[2].tool_call_id(), "a");
  EXPECT_EQ(messages[2].content(), "1");
  EXPECT_EQ(messages[3].content(), "");
  ASSERT_EQ(messages[3].parts_size(), 2);
  EXPECT_EQ(messages[3].parts(0).text(), "2");
  EXPECT_EQ(messages[3].parts(1).image().data_url(), "data:image/webp;base64,QQ==");
  EXPECT_EQ(messages[3].parts(1).image().media_type(), "image/webp");
  EXPECT_EQ(messages[3].parts(1).image().detail(), "high");
}

TEST(ToolRequest, IgnoresWhatHasNoEffectWithoutTools) {
  const auto result = ParseChatRequest(WithFields(R"("tools":[],"tool_choice":"none","parallel_tool_calls":false)"));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_FALSE(result->request.has_tool_choice() || result->request.has_parallel_tool_calls());
}

struct Row {
  std::string body;
  std::string param;
  std::string code = "";
};

TEST(ToolRequest, RejectsHostileAndInvalidBodies) {
  const std::string unsupported = "unsupported_parameter";
  std::string many;
  for (int i = 0; i < 10'000; ++i) {
    many += (i ? "," : "") + std::string(R"({"type":"function","function":{"name":"f)") + std::to_string(i) + "\"}}";
  }
  const std::string large = "{\"a\":\"" + std::string(base::kMaxToolSchemaBytes, 'x') + "\"}";
  std::string total;
  for (int i = 0; i < 20; ++i) {
    total += (i ? "," : "") + std::string(R"({"type":"function","function":{"name":"f)") + std::to_string(i) +
             R"(","parameters":{"a":")" + std::string(60'000, 'x') + "\"}}}";
  }
  std::string calls;
  for (int i = 0; i < 129; ++i) calls += (i ? "," : "") + std::string(R"({"id":"c","function":{"name":"f"}})");
  const auto name = [](const std::string& text) {
    return WithFields(R"("tools":[{"type":"function","function":{"name":")" + text + "\"}}]");
  };
  const auto id = [](const std::string& text) {
    return WithMessage(R"({"role":"assistant","tool_calls":[{"id":")" + text + R"(","function":{"name":"f"}}]})");
  };
  std::string ones = "1";
  std::string names = R"({"type":"function","function":{"name":"f"}})";
  for (int i = 0; i < 100'000; ++i) ones += ",1";
  for (int i = 0; i < 10'000; ++i) names += R"(,{"type":"function","function":{"name":"f"}})";
  const std::string url = "messages[0].content[0].image_url.url";
  const std::vector<Row> rows = {
      {WithFields("\"tools\":[" + many + "]"), "tools"},
      {WithFields("\"tools\":[" + total + "]"), "tools"},
      {WithFields("\"tools\":{}"), "tools"},
      {WithFields("\"tools\":[5]"), "tools[0]"},
      {WithFields("\"tools\":[{}]"), "tools[0].type", unsupported},
      {WithFields(R"("tools":[{"type":"custom","custom":{"name":"f"}}])"), "tools[0].type", unsupported},
      {WithFields(R"("tools":[{"type":"function"}])"), "tools[0].function"},
      {WithFields(
           R"("tools":[{"type":"function","function":{"name":"f"}},{"type":"function","function":{"name":"f"}}])"),
       "tools"},
      {WithFields(R"("tools":[{"type":"function","function":{"name":"f","strict":"yes"}}])"),
       "tools[0].function.strict"},
      {WithFields(R"("tools":[{"type":"function","function":{"name":"f","description":5}}])"),
       "tools[0].function.description"},
      {name(""), "tools[0].function.name"},
      {name(std::string(257, 'n')), "tools[0].function.name"},
      {name("a\\nb"), "tools[0].function.name"},
      {name("a\\u0000b"), "tools[0].function.name"},
      {name("a\\u007fb"), "tools[0].function.name"},
      {name("a\\u0085b"), "tools[0].function.name"},
      {WithParameters("[]"), "tools[0].function.parameters"},
      {WithParameters("\"{}\""), "tools[0].function.parameters"},
      {WithParameters(large), "tools[0].function.parameters"},
      {WithParameters("{\"a\":\"" + std::string(1 << 20, 'x') + "\"}"), "tools[0].function.parameters"},
      {WithParameters(Nested(65)), "tools[0].function.parameters"},
      {WithParameters(Nested(10'000)), "", ""},
      {WithFields("\"tools\":[" + ones + "]"), "tools"},
      {WithFields(R"("tools":[{"type":"function","function":{"name":"f","description":")" +
                  std::string(base::kMaxToolsBytes, 'x') + "\"}}]"),
       "tools"},
      {WithFields(R"("tools":[{"type":"function","function":{"name":"f"},"made_up":1}])"), "tools[0].made_up",
       unsupported},
      {WithFields(std::string(kTool) +
                  R"(,"tool_choice":{"type":"allowed_tools","allowed_tools":{"mode":"auto","tools":[]}})"),
       "tool_choice.allowed_tools.tools"},
      {WithFields(std::string(kTool) +
                  R"(,"tool_choice":{"type":"allowed_tools","allowed_tools":{"mode":"auto",)"
                  R"("tools":[)" +
                  names + "]}}"),
       "tool_choice.allowed_tools.tools"},
      {WithFields("\"tool_choice\":\"required\""), "tool_choice"},
      {WithFields("\"tool_choice\":\"maybe\""), "tool_choice"},
      {WithFields("\"tool_choice\":5"), "tool_choice"},
      {WithFields(std::string(kTool) + R"(,"tool_choice":{"type":"function","function":{"name":"h"}})"), "tool_choice"},
      {WithFields(std::string(kTool) + R"(,"tool_choice":{"type":"custom"})"), "tool_choice.type", unsupported},
      {WithFields(std::string(kTool) + R"(,"tool_choice":{"type":"function"})"), "tool_choice.function"},
      {WithFields(std::string(kTool) + R"(,"tool_choice":{"type":"allowed_tools"})"), "tool_choice.allowed_tools"},
      {WithFields(std::string(kTool) + R"(,"tool_choice":{"type":"allowed_tools","allowed_tools":{"mode":"none"}})"),
       "tool_choice.allowed_tools.mode"},
      {WithFields(
           std::string(kTool) +
           R"(,"tool_choice":{"type":"allowed_tools","allowed_tools":{"mode":"auto","tools":[{"type":"function","function":{"name":"h"}}]}})"),
       "tool_choice"},
      {WithFields("\"parallel_tool_calls\":1"), "parallel_tool_calls"},
      {WithFields("\"reasoning_effort\":\"\""), "reasoning_effort"},
      {WithFields("\"reasoning_effort\":\"High\""), "reasoning_effort"},
      {WithFields("\"reasoning_effort\":\"" + std::string(33, 'a') + "\""), "reasoning_effort"},
      {WithMessage(R"({"role":"assistant","tool_calls":[)" + calls + "]}"), "messages[0].tool_calls"},
      {WithMessage(R"({"role":"user","content":"x","tool_calls":[{"id":"c","function":{"name":"f"}}]})"),
       "messages[0].tool_calls"},
      {id(""), "messages[0].tool_calls[0].id"},
      {id("a\\u001bb"), "messages[0].tool_calls[0].id"},
      {id(std::string(257, 'i')), "messages[0].tool_calls[0].id"},
      {WithMessage(R"({"role":"assistant","tool_calls":[{"id":"c","function":{"name":"f","arguments":{}}}]})"),
       "messages[0].tool_calls[0].function.arguments"},
      {WithMessage(R"({"role":"assistant","content":"x","tool_calls":5})"), "messages[0].tool_calls"},
      {WithMessage(R"({"role":"assistant","content":"x","tool_calls":[5]})"), "messages[0].tool_calls[0]"},
      {WithMessage(R"({"role":"assistant","tool_calls":[{"id":"c"}]})"), "messages[0].tool_calls[0].function"},
      {WithMessage(R"({"role":"assistant","tool_calls":[{"id":"c","function":{}}]})"),
       "messages[0].tool_calls[0].function.name"},
      {WithMessage(R"({"role":"tool","content":"x","tool_call_id":"\u0085"})"), "messages[0].tool_call_id"},
      {WithMessage(R"({"role":"tool","content":"x","tool_call_id":["c"]})"), "messages[0].tool_call_id"},
      {WithMessage(R"({"role":"tool","content":"x"})"), "messages[0].tool_call_id"},
      {WithMessage(R"({"role":"tool","tool_call_id":"c"})"), "messages[0].content"},
      {WithMessage(R"({"role":"user","content":"x","reasoning_content":"y"})"), "messages[0].reasoning_content"},
      {WithMessage(R"({"role":"assistant","content":"x","reasoning":5})"), "messages[0].reasoning"},
      {WithMessage(
           R"({"role":"system","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]})"),
       "messages[0].content[0]"},
      {WithMessage(R"({"role":"user","content":[{"type":"image_url","image_url":"data:image/png;base64,AAAA"}]})"),
       "messages[0].content[0].image_url"},
      {WithMessage(
           R"({"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA","detail":"LOW"}}]})"),
       "messages[0].content[0].image_url.detail"},
      {WithMessage(
           R"({"role":"user","content":[{"type":"image_url","detail":"low","image_url":{"url":"data:image/png;base64,AAAA"}}]})"),
       "messages[0].content[0].detail", unsupported},
      {WithImage("https://example.com/a.png"), url},
      {WithImage("file:///etc/passwd"), url},
      {WithImage(""), url},
      {WithImage("data:"), url},
      {WithImage("data:image/png;base64,"), url},
      {WithImage("data:image/png,AAAA"), url},
      {WithImage("data:image/svg+xml;base64,AAAA"), url},
      {WithImage("data:text/html;base64,AAAA"), url},
      {WithImage("data:image/png;base64,AAA"), url},
      {WithImage("data:image/png;base64,A==="), url},
      {WithImage("data:image/png;base64,AA=A"), url},
      {WithImage("data:image/png;base64,AA A"), url},
      {WithImage("data:image/png;base64,AA%3D"), url},
      {WithImage("data:image/png;base64,\\u0000AAA"), url},
      {WithImage(" data:image/png;base64,AAAA"), url},
      {WithImage("data:image/png;" + std::string(1000, 'x') + ";base64,AAAA"), url},
  };
  for (const Row& row : rows) {
    const auto request = ParseChatRequest(row.body);
    ASSERT_FALSE(request.ok()) << row.body.substr(0, 300);
    const bridge::HttpError error = OpenAiErrorOf(request.status(), OpenAiApi::kChat);
    EXPECT_EQ(error.status, 400) << row.body.substr(0, 300);
    EXPECT_EQ(error.param, row.param) << row.body.substr(0, 300);
    EXPECT_EQ(error.code, row.code) << row.body.substr(0, 300);
    EXPECT_LT(error.message.size(), 1000u);
  }
}

TEST(ToolRequest, AcceptsValuesAtTheLimits) {
  std::string tools;
  for (size_t i = 0; i < base::kMaxTools; ++i) {
    tools += (i ? "," : "") + std::string(R"({"type":"function","function":{"name":"f)") + std::to_string(i) + "\"}}";
  }
  for (const std::string& body :
       {WithFields("\"tools\":[" + tools + "]"), WithParameters(Nested(64)),
        WithParameters("{\"a\":\"" + std::string(base::kMaxToolSchemaBytes - 8, 'x') + "\"}"),
        WithFields(R"("tools":[{"type":"function","function":{"name":")" + std::string(256, 'n') + "\"}}]"),
        // The parser ignores a byte order mark.
        "\xEF\xBB\xBF" + WithParameters("{}"), WithImage("data:image/jpeg;base64,AA=="),
        WithImage("DATA:IMAGE/PNG;BASE64,AAA=")}) {
    const auto request = ParseChatRequest(body);
    EXPECT_TRUE(request.ok()) << request.status() << body.substr(0, 300);
  }
}

}  // namespace
}  // namespace runnel::openai
