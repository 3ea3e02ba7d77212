#include "bridges/websocket/ws_protocol.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "bridges/wire/event_json.h"
#include "services/base/grpc_status.h"

namespace runnel::websocket {
namespace {

constexpr char kGen[] = "gen_abcdefghijklmnopqrstuvwxyz";

v1::WebSocketClientMessage Parse(const std::string& json) {
  v1::WebSocketClientMessage message;
  std::string req;
  const absl::Status status = ParseClientMessage(Format::kJson, json, &message, &req);
  EXPECT_TRUE(status.ok()) << json << ": " << status;
  return message;
}

std::string Json(const v1::WebSocketServerMessage& message) {
  std::string out;
  AppendMessage(Format::kJson, message, &out);
  return out;
}

TEST(NegotiateProtocol, TakesTheFirstSupportedAndEchoesOnlyWhatWasOffered) {
  struct Row {
    const char* offered;
    bool ok;
    Format format;
    const char* echo;
  };
  const Row rows[] = {
      {"", true, Format::kJson, ""},
      {"   ", true, Format::kJson, ""},
      {"runnel.v1", true, Format::kJson, "runnel.v1"},
      {"runnel.v1.proto", true, Format::kProto, "runnel.v1.proto"},
      {"chat, runnel.v1.proto ,runnel.v1", true, Format::kProto, "runnel.v1.proto"},
      {"runnel.v1,bearer.c2VjcmV0", true, Format::kJson, "runnel.v1"},
      {"chat", false, Format::kJson, ""},
      {"runnel.v2", false, Format::kJson, ""},
      {"RUNNEL.V1", false, Format::kJson, ""},
      {"runnel.v1x", false, Format::kJson, ""},
      {",", false, Format::kJson, ""},
  };
  for (const Row& row : rows) {
    Negotiated negotiated;
    EXPECT_EQ(NegotiateProtocol(row.offered, &negotiated).ok(), row.ok) << row.offered;
    EXPECT_EQ(negotiated.format, row.format) << row.offered;
    EXPECT_EQ(negotiated.protocol, row.echo) << row.offered;
  }
}

TEST(ParseClientMessage, ReadsEveryMessage) {
  const auto generate = Parse(
      R"({"type":"generate","req":"c1","body":{"model":"m","prompt":"hi"},"idempotency_key":"k","traceparent":"00-a"})");
  EXPECT_EQ(generate.generate().req(), "c1");
  EXPECT_EQ(generate.generate().request().model(), "m");
  EXPECT_EQ(generate.generate().request().prompt(), "hi");
  EXPECT_EQ(generate.generate().request().request_id(), "k");
  EXPECT_EQ(generate.generate().traceparent(), "00-a");

  const auto resume =
      Parse(R"({"type":"resume","req":"c2","gen":"gen_abcdefghijklmnopqrstuvwxyz","after":17,"on_gap":"fail"})");
  EXPECT_EQ(resume.resume().req(), "c2");
  EXPECT_EQ(resume.resume().generation_id(), kGen);
  EXPECT_EQ(resume.resume().after_seq(), 17u);
  EXPECT_EQ(resume.resume().gap_policy(), v1::GAP_POLICY_FAIL);

  EXPECT_EQ(Parse(R"({"type":"cancel","gen":"gen_abcdefghijklmnopqrstuvwxyz"})").cancel().generation_id(), kGen);
  EXPECT_EQ(Parse(R"({"type":"detach","gen":"gen_abcdefghijklmnopqrstuvwxyz"})").detach().generation_id(), kGen);
  EXPECT_EQ(Parse(R"({"type":"ping","t":123})").ping().t(), 123);
  EXPECT_EQ(Parse(R"({"type":"auth","token":"secret"})").auth().token(), "secret");
}

TEST(ParseClientMessage, ResumeWithoutAfterReadsFromTheBeginning) {
  const auto message = Parse(R"({"type":"resume","gen":"gen_abcdefghijklmnopqrstuvwxyz","on_gap":null})");
  EXPECT_EQ(message.resume().after_seq(), 0u);
  EXPECT_EQ(message.resume().gap_policy(), v1::GAP_POLICY_UNSPECIFIED);
}

TEST(ParseClientMessage, RejectsWhatIsNotAMessage) {
  const std::string gen = R"("gen":"gen_abcdefghijklmnopqrstuvwxyz")";
  const std::vector<std::string> rows = {
      "",
      " ",
      "{",
      "null",
      "17",
      "\"ping\"",
      "[]",
      R"([{"type":"ping"}])",
      R"({"type":"ping"}{"type":"ping"})",
      R"({"type":"ping"} x)",
      "{}",
      R"({"type":null})",
      R"({"type":1})",
      R"({"type":"Ping"})",
      R"({"type":"pong","t":1})",
      R"({"type":"ping","t":"1"})",
      R"({"type":"ping\u0000"})",
      std::string("{\"type\":\"ping\",\"t\":1}\0", 22),
      R"({'type':'ping'})",
      R"({"type":"ping",})",
      R"({"type":"ping","t":NaN})",
      "\xef\xbb\xbf{\"type\":\"ping\"",
      "{\"type\":\"auth\",\"token\":\"\xff\"}",
      R"({"type":"auth","token":7})",
      R"({"type":"auth","token":")" + std::string(5000, 'x') + "\"}",
      R"({"type":"generate"})",
      R"({"type":"generate","body":null})",
      R"({"type":"generate","body":"hi"})",
      R"({"type":"generate","req":1,"body":{"prompt":"x"}})",
      R"({"type":"generate","req":")" + std::string(65, 'r') + R"(","body":{"prompt":"x"}})",
      R"({"type":"generate","body":{"prompt":"x"},"idempotency_key":5})",
      R"({"type":"generate","body":{"prompt":"x"},"traceparent":{}})",
      R"({"type":"resume"})",
      R"({"type":"resume","gen":"gen_X"})",
      R"({"type":"resume","gen":"gen_ABCDEFGHIJKLMNOPQRSTUVWXYZ"})",
      R"({"type":"resume","gen":"gen_abcdefghijklmnopqrstuvwxy"})",
      R"({"type":"resume","gen":"gen_abcdefghijklmnopqrstuvwxyz:17"})",
      R"({"type":"resume",)" + gen + R"(,"after":null})",
      R"({"type":"resume",)" + gen + R"(,"after":-1})",
      R"({"type":"resume",)" + gen + R"(,"after":1.5})",
      R"({"type":"resume",)" + gen + R"(,"after":1e3})",
      R"({"type":"resume",)" + gen + R"(,"after":"17"})",
      R"({"type":"resume",)" + gen + R"(,"after":18446744073709551616})",
      R"({"type":"resume",)" + gen + R"(,"after":[17]})",
      R"({"type":"resume",)" + gen + R"(,"on_gap":"ignore"})",
      R"({"type":"resume",)" + gen + R"(,"on_gap":true})",
      R"({"type":"cancel"})",
      R"({"type":"cancel","gen":["gen_abcdefghijklmnopqrstuvwxyz"]})",
      R"({"type":"detach","gen":""})",
      std::string(100'000, '['),
      R"({"type":"ping","x":)" + std::string(100'000, '['),
  };
  for (const std::string& row : rows) {
    v1::WebSocketClientMessage message;
    std::string req;
    const absl::Status status = ParseClientMessage(Format::kJson, row, &message, &req);
    EXPECT_TRUE(IsBadFrame(status)) << row.substr(0, 100) << " gave " << status;
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << row.substr(0, 100);
  }
}

TEST(ParseClientMessage, DistinguishesABadRequestFromABadFrameAndKeepsItsReq) {
  const std::vector<std::string> rows = {
      R"({"type":"generate","req":"c9","body":{}})",
      R"({"type":"generate","req":"c9","body":{"prompt":5}})",
      R"({"type":"generate","req":"c9","body":{"prompt":"x","temperature":9}})",
      R"({"type":"generate","req":"c9","body":{"prompt":"x"},"idempotency_key":"line\nbreak"})",
      R"({"type":"generate","req":"c9","body":{"prompt":"x"},"idempotency_key":")" + std::string(129, 'k') + "\"}",
  };
  for (const std::string& row : rows) {
    v1::WebSocketClientMessage message;
    std::string req;
    const absl::Status status = ParseClientMessage(Format::kJson, row, &message, &req);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << row;
    EXPECT_FALSE(IsBadFrame(status)) << row;
    EXPECT_EQ(req, "c9") << row;
  }
}

TEST(ParseClientMessage, ABadFrameKeepsItsReqWhereOneCanBeRead) {
  const std::string rows[] = {
      R"({"type":"resume","req":"c3","gen":"x"})",
      R"({"type":"subscribe","req":"c3"})",
      R"({"req":"c3"})",
      R"({"type":7,"req":"c3"})",
      R"({"type":"generate","req":"c3"})",
      R"({"type":"generate","req":"c3","body":{"prompt":"x"},"traceparent":{}})",
  };
  for (const std::string& row : rows) {
    v1::WebSocketClientMessage message;
    std::string req;
    EXPECT_TRUE(IsBadFrame(ParseClientMessage(Format::kJson, row, &message, &req))) << row;
    EXPECT_EQ(req, "c3") << row;
  }
}

TEST(ParseClientMessage, RejectsAnUnknownKeyByName) {
  struct Row {
    std::string json;
    const char* key;
    const char* req;
  };
  const std::string gen = R"("gen":"gen_abcdefghijklmnopqrstuvwxyz")";
  const Row rows[] = {
      {R"({"type":"resume","req":"c4",)" + gen + R"(,"aftr":17})", "aftr", "c4"},
      {R"({"type":"resume","req":"c4",)" + gen + R"(,"after_seq":17})", "after_seq", "c4"},
      {R"({"type":"generate","req":"c4","prompt":"x","body":{"prompt":"x"}})", "prompt", "c4"},
      {R"({"type":"generate","req":"c4","request_id":"k","body":{"prompt":"x"}})", "request_id", "c4"},
      {R"({"type":"cancel",)" + gen + R"(,"req":"c4"})", "req", "c4"},
      {R"({"type":"detach",)" + gen + R"(,"after":1})", "after", ""},
      {R"({"type":"ping","t":1,"T":1})", "T", ""},
      {R"({"type":"auth","token":"k","key":"k"})", "key", ""},
      {R"({"type":"ping","":null})", "", ""},
  };
  for (const Row& row : rows) {
    v1::WebSocketClientMessage message;
    std::string req;
    const absl::Status status = ParseClientMessage(Format::kJson, row.json, &message, &req);
    EXPECT_EQ(base::DetailOf(status).reason, "INVALID_FIELD") << row.json;
    EXPECT_EQ(base::DetailOf(status).field, row.key) << row.json;
    EXPECT_EQ(req, row.req) << row.json;
  }
}

TEST(ParseAuth, AcceptsAuthAndNothingElse) {
  v1::WebSocketClientMessage proto;
  proto.mutable_auth()->set_token("secret");
  v1::WebSocketAuth auth;
  EXPECT_TRUE(ParseAuth(Format::kJson, R"({"type":"auth","token":"secret"})", &auth).ok());
  EXPECT_EQ(auth.token(), "secret");
  EXPECT_TRUE(ParseAuth(Format::kProto, proto.SerializeAsString(), &auth).ok());
  EXPECT_EQ(auth.token(), "secret");
  EXPECT_TRUE(ParseAuth(Format::kJson, R"({"type":"auth"})", &auth).ok());
  EXPECT_EQ(auth.token(), "");

  for (const std::string row : {"", "{", "[]", "null", R"("auth")", R"({"token":"secret"})", R"({"type":"ping","t":1})",
                                R"({"type":["auth"],"token":"secret"})", R"({"type":"auth","token":7})",
                                R"({"type":"auth","token":"a","gen":"b"})"}) {
    EXPECT_FALSE(ParseAuth(Format::kJson, row, &auth).ok()) << row;
  }
  proto.mutable_ping()->set_t(1);
  for (const std::string& row :
       {std::string(), std::string("\x0a"), std::string("\x0a\x05\x0a\x7f"), std::string("\xff"),
        proto.SerializeAsString(), std::string("\x0a\x00", 2) + proto.SerializeAsString()}) {
    EXPECT_FALSE(ParseAuth(Format::kProto, row, &auth).ok()) << row;
  }
}

TEST(EndsWithinCharacter, IsTrueForEveryCharacterThatIsCut) {
  for (const std::string character : {"a", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80"}) {
    for (const std::string before : {"", "a", "\xf0\x9f\x98\x80"}) {
      EXPECT_FALSE(EndsWithinCharacter(before + character)) << character;
      for (size_t kept = 1; kept < character.size(); ++kept) {
        EXPECT_TRUE(EndsWithinCharacter(before + character.substr(0, kept))) << character << " " << kept;
      }
    }
  }
  EXPECT_FALSE(EndsWithinCharacter(""));
}

TEST(ParseClientMessage, ProtobufGivesTheSameMessages) {
  v1::WebSocketClientMessage sent;
  sent.mutable_resume()->set_req("c2");
  sent.mutable_resume()->set_generation_id(kGen);
  sent.mutable_resume()->set_after_seq(17);
  v1::WebSocketClientMessage read;
  std::string req;
  ASSERT_TRUE(ParseClientMessage(Format::kProto, sent.SerializeAsString(), &read, &req).ok());
  EXPECT_EQ(req, "c2");
  EXPECT_EQ(read.SerializeAsString(), sent.SerializeAsString());
}

TEST(ParseClientMessage, ProtobufRejectsWhatIsNotAMessage) {
  v1::WebSocketClientMessage bad_gen;
  bad_gen.mutable_cancel()->set_generation_id("gen_X");
  v1::WebSocketClientMessage no_gen;
  no_gen.mutable_detach();
  v1::WebSocketClientMessage long_req;
  long_req.mutable_resume()->set_req(std::string(65, 'r'));
  v1::WebSocketClientMessage long_trace;
  long_trace.mutable_generate()->set_traceparent(std::string(600, '0'));
  const std::vector<std::string> rows = {
      "",  // No field of the oneof is set.
      "\xff",
      "{\"type\":\"ping\"}",
      std::string("\x0a\x05\x0a\x7f", 4),      // A length past the end.
      std::string("\x0a\x03\x0a\x01\xff", 5),  // A string that is not UTF-8.
      bad_gen.SerializeAsString(),
      no_gen.SerializeAsString(),
      long_req.SerializeAsString(),
      long_trace.SerializeAsString(),
  };
  for (const std::string& row : rows) {
    v1::WebSocketClientMessage message;
    std::string req;
    EXPECT_TRUE(IsBadFrame(ParseClientMessage(Format::kProto, row, &message, &req))) << message.ShortDebugString();
    EXPECT_LE(req.size(), kMaxReqBytes);
  }
}

TEST(AppendMessage, WritesExactBytes) {
  v1::WebSocketServerMessage message;
  auto* hello = message.mutable_hello();
  hello->set_version(1);
  hello->set_max_streams(32);
  hello->set_heartbeat_seconds(20);
  hello->set_resume_ttl_seconds(600);
  EXPECT_EQ(Json(message), R"({"type":"hello","v":1,"max_streams":32,"heartbeat_s":20,"resume_ttl_s":600})");

  auto* attached = message.mutable_attached();
  attached->set_generation_id(kGen);
  attached->set_after_seq(17);
  attached->set_last_seq(40);
  attached->set_status(v1::GENERATION_STATUS_RUNNING);
  message.set_req("c2");
  EXPECT_EQ(Json(message),
            R"({"type":"attached","req":"c2","gen":"gen_abcdefghijklmnopqrstuvwxyz","after":17,"last_seq":40,)"
            R"("status":"running"})");

  auto* error = message.mutable_error();
  error->set_code("rate_limited");
  error->set_message("a \"b\"\n\x01");
  error->set_status(429);
  error->set_retry_after_ms(500);
  message.set_req("c\"1");
  EXPECT_EQ(Json(message),
            R"({"type":"error","req":"c\"1","error":{"code":"rate_limited","message":"a \"b\"\n\u0001","status":429,)"
            R"("retry_after_ms":500}})");

  message.clear_req();
  error->set_retry_after_ms(0);
  error->set_message("m");
  error->set_generation_id("gen_x");
  EXPECT_EQ(Json(message),
            R"({"type":"error","gen":"gen_x","error":{"code":"rate_limited","message":"m","status":429}})");

  message.mutable_goaway()->set_reason("drain");
  message.mutable_goaway()->set_deadline_ms(5000);
  EXPECT_EQ(Json(message), R"({"type":"goaway","reason":"drain","deadline_ms":5000})");
}

TEST(AppendMessage, PongEchoesTheNumberAsItCame) {
  struct Row {
    double t;
    const char* json;
  };
  const Row rows[] = {{123, "123"},
                      {0, "0"},
                      {-5, "-5"},
                      {1763874000123, "1763874000123"},
                      {0.5, "0.5"},
                      {9007199254740992, "9007199254740992"},
                      {1e300, "1e+300"},
                      {std::numeric_limits<double>::quiet_NaN(), "null"},
                      {std::numeric_limits<double>::infinity(), "null"}};
  for (const Row& row : rows) {
    v1::WebSocketServerMessage message;
    message.mutable_pong()->set_t(row.t);
    EXPECT_EQ(Json(message), std::string(R"({"type":"pong","t":)") + row.json + "}");
  }
}

v1::GenerationEvent DeltaEvent() {
  v1::GenerationEvent event;
  event.set_seq(2);
  event.mutable_delta()->set_text("Hel");
  event.mutable_delta()->set_tokens(1);
  return event;
}

TEST(AppendEvent, JsonIsTheSseDataWithReqAtItsEnd) {
  v1::GenerationEvent event = DeltaEvent();
  std::string sse;
  bridge::AppendEventJson(kGen, event, &sse);
  std::string plain;
  AppendEvent(Format::kJson, kGen, "", &event, &plain);
  EXPECT_EQ(plain, sse);

  std::string with_req;
  AppendEvent(Format::kJson, kGen, "c\"1", &event, &with_req);
  EXPECT_EQ(with_req, sse.substr(0, sse.size() - 1) + R"(,"req":"c\"1"})");
}

TEST(AppendEvent, ProtoIsAServerMessageWithTheIdOfTheGeneration) {
  for (const size_t text_bytes : {0u, 3u, 120u, 200u, 20'000u}) {
    for (const char* req : {"", "c1"}) {
      v1::GenerationEvent event = DeltaEvent();
      event.mutable_delta()->set_text(std::string(text_bytes, 'x'));
      std::string bytes = "before";
      AppendEvent(Format::kProto, kGen, req, &event, &bytes);
      v1::WebSocketServerMessage want;
      want.set_req(req);
      *want.mutable_event() = DeltaEvent();
      want.mutable_event()->mutable_delta()->set_text(std::string(text_bytes, 'x'));
      want.mutable_event()->set_generation_id(kGen);
      EXPECT_EQ(bytes, "before" + want.SerializeAsString());
    }
  }
}

}  // namespace
}  // namespace runnel::websocket
