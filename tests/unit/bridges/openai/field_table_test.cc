// proto/README.md has a table of how every field is treated. These tests send each row.
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "bridges/openai/completion_request.h"
#include "bridges/openai/other_fields.h"
#include "bridges/openai/responses_request.h"
#include "bridges/wire/stream_request.h"
#include "services/base/grpc_status.h"
#include "services/base/strings.h"

namespace runnel::openai {
namespace {

using nlohmann::ordered_json;

// The result of parsing a body. `rest` is the part that is not in the request.
struct Read {
  absl::Status status;
  v1::GenerateRequest request;
  std::string rest;
};

Read ReadChat(const std::string& body) {
  auto result = ParseChatRequest(body);
  if (!result.ok()) return {result.status(), {}, ""};
  return {absl::OkStatus(), result->request,
          std::to_string(result->shape.stream) + std::to_string(result->shape.include_usage)};
}

Read ReadCompletion(const std::string& body) {
  auto result = ParseCompletionRequest(body);
  if (!result.ok()) return {result.status(), {}, ""};
  return {absl::OkStatus(), result->request,
          std::to_string(result->shape.stream) + std::to_string(result->shape.include_usage)};
}

Read ReadResponses(const std::string& body) {
  auto result = ParseResponsesRequest(body);
  if (!result.ok()) return {result.status(), {}, ""};
  // It has the fields that are repeated in the response and otherwise ignored.
  result->request.clear_annotation();
  return {absl::OkStatus(), result->request,
          std::to_string(result->stream) + std::to_string(result->echo.background) +
              std::to_string(result->echo.store) + result->previous};
}

Read ReadNative(const std::string& body) {
  auto result = bridge::ParseStreamRequest(body);
  if (!result.ok()) return {result.status(), {}, ""};
  return {absl::OkStatus(), result->request, std::to_string(result->stream)};
}

struct Api {
  const char* name;
  Read (*read)(const std::string& body);
  const char* base;
  std::vector<std::string_view> (*names)();
};
const std::vector<Api> kApis = {
    {"chat", ReadChat, R"({"model":"m","messages":[{"role":"user","content":"hi"}]})", ChatFieldNames},
    {"completions", ReadCompletion, R"({"model":"m","prompt":"hi"})", CompletionFieldNames},
    {"responses", ReadResponses, R"({"model":"m","input":[{"role":"user","content":"hi"}]})", ResponsesFieldNames},
    {"native", ReadNative, R"({"model":"m","prompt":"hi"})", bridge::NativeFieldNames},
};

struct Row {
  std::string field;
  std::string sent;
  std::vector<std::string> treatments;  // one an API
};

std::string Cell(absl::string_view text) {
  text = absl::StripAsciiWhitespace(text);
  absl::ConsumePrefix(&text, "`");
  absl::ConsumeSuffix(&text, "`");
  return std::string(text);
}

std::vector<Row> ReadTable() {
  std::ifstream file(RUNNEL_FIELD_TABLE);
  std::vector<Row> rows;
  for (std::string line; std::getline(file, line);) {
    if (!absl::StartsWith(line, "| `")) continue;
    const std::vector<std::string> cells = absl::StrSplit(line, " | ");
    if (cells.size() < 6) continue;
    Row row;
    row.field = Cell(absl::StripPrefix(cells[0], "| "));
    row.sent = Cell(cells[1]);
    for (size_t i = 2; i < 6; ++i) row.treatments.push_back(Cell(cells[i]));
    rows.push_back(std::move(row));
  }
  return rows;
}

// The bodies without the field of the row, which is the last one sent, and with it.
struct Bodies {
  std::string without;
  std::string with;
};

Bodies BodiesOf(const Api& api, const Row& row) {
  const ordered_json sent = ordered_json::parse("{" + row.sent + "}");
  ordered_json body = ordered_json::parse(api.base);
  Bodies bodies;
  size_t left = sent.size();
  for (const auto& [key, value] : sent.items()) {
    if (--left == 0) bodies.without = body.dump();
    // The native API needs exactly one of them.
    if (api.read == ReadNative && key == "messages") body.erase("prompt");
    body[key] = value;
  }
  bodies.with = body.dump();
  return bodies;
}

std::string TreatmentOf(const Api& api, const Row& row) {
  const Bodies bodies = BodiesOf(api, row);
  const Read without = api.read(bodies.without);
  const Read with = api.read(bodies.with);
  if (!without.status.ok()) return "bad row: " + without.status.ToString();
  if (!with.status.ok()) {
    const base::ErrorDetail detail = base::DetailOf(with.status);
    // An earlier part of the path may be the one that is unknown or not supported.
    const std::string path = absl::StrReplaceAll(row.field, {{"[]", "[0]"}});
    const bool named = !detail.field.empty() && absl::StartsWith(path, detail.field);
    const bool code =
        detail.reason == "UNSUPPORTED_PARAMETER" || (detail.reason == "INVALID_FIELD" && api.read == ReadNative);
    return named && code ? "refused" : "bad error: " + with.status.ToString();
  }
  if (with.request.extra_fields_size() > 0) {
    const bool named = with.request.extra_fields_size() == 1 && with.request.extra_fields().count(row.field) == 1;
    return named ? "engine" : "another field for the engine";
  }
  const bool same =
      google::protobuf::util::MessageDifferencer::Equals(without.request, with.request) && without.rest == with.rest;
  return same ? "ignored" : "used";
}

TEST(FieldTable, DescribesEveryField) {
  const std::vector<Row> rows = ReadTable();
  ASSERT_GT(rows.size(), 80u);
  for (const Row& row : rows) {
    ASSERT_EQ(row.treatments.size(), kApis.size()) << row.field;
    for (size_t i = 0; i < kApis.size(); ++i) {
      if (row.treatments[i] == "-") continue;
      EXPECT_EQ(TreatmentOf(kApis[i], row), row.treatments[i]) << row.sent << " in " << kApis[i].name;
    }
  }
}

TEST(FieldTable, ListsEveryFieldOfTheCode) {
  const std::vector<Row> rows = ReadTable();
  for (size_t i = 0; i < kApis.size(); ++i) {
    std::vector<std::string_view> names = kApis[i].names();
    if (kApis[i].read != ReadNative) {
      for (const std::string_view name : OtherFieldNames()) names.push_back(name);
    }
    for (const std::string_view name : names) {
      const bool found = std::any_of(rows.begin(), rows.end(), [&](const Row& row) {
        const absl::string_view top = absl::string_view(row.field).substr(0, row.field.find_first_of(".["));
        return top == base::ToAbsl(name) && row.treatments[i] != "-";
      });
      EXPECT_TRUE(found) << name << " of " << kApis[i].name;
    }
  }
}

TEST(FieldTable, LimitsTheFieldsForAnEngine) {
  const std::string head = R"({"model":"m","prompt":"hi")";
  std::string many = head;
  for (int i = 0; i < 32; ++i) many += ",\"x" + std::to_string(i) + "\":1";
  EXPECT_EQ(ReadCompletion(many + "}").request.extra_fields_size(), 32);
  EXPECT_EQ(base::DetailOf(ReadCompletion(many + ",\"y\":1}").status).field, "y");
  EXPECT_TRUE(ReadCompletion(head + ",\"" + std::string(64, 'n') + "\":1}").status.ok());
  EXPECT_EQ(base::DetailOf(ReadCompletion(head + ",\"" + std::string(65, 'n') + "\":1}").status).reason,
            "UNSUPPORTED_PARAMETER");
  EXPECT_TRUE(ReadCompletion(head + ",\"x\":\"" + std::string(65'534, 'v') + "\"}").status.ok());
  EXPECT_EQ(base::DetailOf(ReadCompletion(head + ",\"x\":\"" + std::string(65'535, 'v') + "\"}").status).field, "x");
  EXPECT_EQ(ReadCompletion(head + R"(,"x":{"a":[1,"b"]}})").request.extra_fields().at("x"), R"({"a":[1,"b"]})");
  // A key can be any text, and is shown in messages and headers.
  EXPECT_EQ(base::DetailOf(ReadNative("{\"prompt\":\"p\",\"\\r\\né" + std::string(100, 'n') + "\":1}").status).field,
            "????" + std::string(60, 'n'));
}

TEST(FieldTable, IgnoresNeutralValues) {
  const std::string head = R"({"model":"m","messages":[{"role":"user","content":"hi"}],)";
  for (const char* field : {R"("best_of":1)",
                            R"("best_of":0)",
                            R"("echo":false)",
                            R"("suffix":"")",
                            R"("functions":[])",
                            R"("function_call":"none")",
                            R"("function_call":"auto")",
                            R"("modalities":["text"])",
                            R"("audio":null)",
                            R"("reasoning":{})",
                            R"("reasoning":{"effort":null,"summary":null})",
                            R"("repetition_penalty":1)",
                            R"("repetition_penalty":1.0)",
                            R"("ignore_eos":false)",
                            R"("min_tokens":0)",
                            R"("chat_template_kwargs":{})",
                            R"("truncation":"disabled")",
                            R"("tools":[])",
                            R"("tool_choice":"auto")",
                            R"("guided_json":null)",
                            R"("reasoning_effort":null)",
                            R"("previous_response_id":"")"}) {
    const Read read = ReadChat(head + field + "}");
    EXPECT_TRUE(read.status.ok()) << field << read.status;
    EXPECT_EQ(read.request.extra_fields_size(), 0) << field;
  }
}

}  // namespace
}  // namespace runnel::openai
