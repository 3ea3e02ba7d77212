#include "bridges/websocket/ws_protocol.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "bridges/websocket/ws_error.h"
#include "bridges/wire/cursor.h"
#include "bridges/wire/event_json.h"
#include "bridges/wire/json_parser.h"
#include "bridges/wire/json_slice.h"
#include "bridges/wire/part_json.h"
#include "bridges/wire/stream_request.h"
#include "google/protobuf/io/coded_stream.h"
#include "services/base/grpc_status.h"
#include "services/base/request_limits.h"
#include "services/base/status_macros.h"
#include "services/base/strings.h"

namespace runnel::websocket {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr std::string_view kBadFrame = "BAD_FRAME";
constexpr size_t kMaxTokenBytes = 4096;

absl::Status BadFrame(std::string_view message) {
  return base::MakeError(absl::StatusCode::kInvalidArgument, kBadFrame, message);
}

// Reads the optional string at `key`; null means absent.
absl::Status ReadString(const json& object, const char* key, size_t max_bytes, std::string* value) {
  const auto it = object.find(key);
  if (it == object.end() || it->is_null()) return absl::OkStatus();
  if (!it->is_string()) return BadFrame(absl::StrCat(key, " must be a string"));
  const auto& text = it->get_ref<const std::string&>();
  if (text.size() > max_bytes) return BadFrame(absl::StrCat(key, " must be at most ", max_bytes, " bytes"));
  *value = text;
  return absl::OkStatus();
}

absl::Status CheckGenerationId(std::string_view id) {
  return bridge::IsGenerationId(id) ? absl::OkStatus()
                                    : BadFrame("gen must be a generation id: gen_ and 26 characters of a-z2-7");
}

absl::Status ReadGen(const json& object, std::string* id) {
  RETURN_IF_ERROR(ReadString(object, "gen", kMaxReqBytes, id));
  return CheckGenerationId(*id);
}

// `bytes`: of the message.
absl::Status ReadGenerate(const json& object, std::string_view bytes, v1::WebSocketGenerate* generate) {
  RETURN_IF_ERROR(ReadString(object, "traceparent", base::kMaxTraceBytes, generate->mutable_traceparent()));
  RETURN_IF_ERROR(ReadString(object, "tracestate", base::kMaxTraceBytes, generate->mutable_tracestate()));
  const auto body = object.find("body");
  if (body == object.end() || !body->is_object()) return BadFrame("generate needs a body that is a JSON object");
  std::string key;
  RETURN_IF_ERROR(ReadString(object, "idempotency_key", 1024, &key));
  ASSIGN_OR_RETURN(v1::GenerateRequest request, bridge::ParseGenerateRequest(*body, bridge::FindMember(bytes, "body")));
  *generate->mutable_request() = std::move(request);
  if (!key.empty()) {
    RETURN_IF_ERROR(bridge::CheckIdempotencyKey(key));
    generate->mutable_request()->set_request_id(key);
  }
  return absl::OkStatus();
}

absl::Status ReadResume(const json& object, v1::WebSocketResume* resume) {
  RETURN_IF_ERROR(ReadGen(object, resume->mutable_generation_id()));
  // An invalid value must not become zero, because that would repeat the whole text without an error. The same holds
  // for null, which is how JavaScript writes NaN.
  if (const auto after = object.find("after"); after != object.end()) {
    if (!after->is_number_unsigned()) return BadFrame("after must be a whole number of at least 0");
    resume->set_after_seq(after->get<uint64_t>());
  }
  if (const auto epoch = object.find("epoch"); epoch != object.end()) {
    if (!epoch->is_number_unsigned() || epoch->get<uint64_t>() > std::numeric_limits<uint32_t>::max()) {
      return BadFrame("epoch must be a whole number from 0 to 4294967295");
    }
    resume->set_after_epoch(epoch->get<uint32_t>());
  }
  std::string on_gap;
  RETURN_IF_ERROR(ReadString(object, "on_gap", 16, &on_gap));
  if (on_gap == "fail") {
    resume->set_gap_policy(v1::GAP_POLICY_FAIL);
  } else if (!on_gap.empty() && on_gap != "signal") {
    return BadFrame("on_gap must be signal or fail");
  }
  return absl::OkStatus();
}

absl::Status ReadPing(const json& object, v1::WebSocketPing* ping) {
  const auto t = object.find("t");
  if (t == object.end() || t->is_null()) return absl::OkStatus();
  if (!t->is_number()) return BadFrame("t must be a number");
  ping->set_t(t->get<double>());
  return absl::OkStatus();
}

// The keys allowed in each type of message.
struct MessageKeys {
  std::string_view type;
  std::vector<std::string_view> keys;
};
const std::vector<MessageKeys>& AllMessageKeys() {
  static const auto* const rows = new std::vector<MessageKeys>{
      {"auth", {"token"}},
      {"generate", {"req", "body", "idempotency_key", "traceparent", "tracestate"}},
      {"resume", {"req", "gen", "after", "epoch", "on_gap"}},
      {"cancel", {"gen"}},
      {"detach", {"gen"}},
      {"ping", {"t"}},
  };
  return *rows;
}

// Rejects an unknown type and unknown keys: a misspelt `after` would otherwise repeat the whole text without an error.
absl::Status CheckKeys(const json& object, std::string_view type) {
  const auto& rows = AllMessageKeys();
  const auto row =
      std::find_if(rows.begin(), rows.end(), [type](const MessageKeys& candidate) { return candidate.type == type; });
  if (row == rows.end())
    return BadFrame("unknown message type; expected auth, generate, resume, cancel, detach or ping");
  for (const auto& [key, unused] : object.items()) {
    if (key == "type" || std::find(row->keys.begin(), row->keys.end(), key) != row->keys.end()) continue;
    return base::InvalidField(key.substr(0, kMaxReqBytes), absl::StrCat("unknown key of ", base::ToAbsl(type)));
  }
  return absl::OkStatus();
}

absl::StatusOr<json> ParseObject(std::string_view bytes) {
  // The parser would stop at a NUL and ignore the rest.
  if (bytes.find('\0') != std::string_view::npos) return BadFrame("a message must not contain a NUL byte");
  absl::StatusOr<json> object = bridge::ParseJsonObject(bytes);
  if (!object.ok()) return BadFrame("a message must be one JSON object without duplicate keys or too many levels");
  return object;
}

absl::Status ParseJson(std::string_view bytes, v1::WebSocketClientMessage* message, std::string* req) {
  ASSIGN_OR_RETURN(const json object, ParseObject(bytes));
  // First, so that the reply to any other error can name it.
  RETURN_IF_ERROR(ReadString(object, "req", kMaxReqBytes, req));
  std::string type;
  RETURN_IF_ERROR(ReadString(object, "type", 16, &type));
  RETURN_IF_ERROR(CheckKeys(object, type));
  if (type == "generate") {
    message->mutable_generate()->set_req(*req);
    return ReadGenerate(object, bytes, message->mutable_generate());
  }
  if (type == "resume") {
    message->mutable_resume()->set_req(*req);
    return ReadResume(object, message->mutable_resume());
  }
  if (type == "cancel") return ReadGen(object, message->mutable_cancel()->mutable_generation_id());
  if (type == "detach") return ReadGen(object, message->mutable_detach()->mutable_generation_id());
  if (type == "ping") return ReadPing(object, message->mutable_ping());
  return ReadString(object, "token", kMaxTokenBytes, message->mutable_auth()->mutable_token());
}

absl::Status ParseJsonAuth(std::string_view bytes, v1::WebSocketAuth* auth) {
  ASSIGN_OR_RETURN(const json object, ParseObject(bytes));
  const auto type = object.find("type");
  if (type == object.end() || *type != "auth") return BadFrame("expected auth as the first message");
  RETURN_IF_ERROR(CheckKeys(object, "auth"));
  return ReadString(object, "token", kMaxTokenBytes, auth->mutable_token());
}

// Copies the req of a message, or clears it there if it is too long to be echoed.
absl::Status ReadReq(std::string* in_message, std::string* req) {
  if (in_message->size() > kMaxReqBytes) {
    in_message->clear();
    return BadFrame(absl::StrCat("req must be at most ", kMaxReqBytes, " bytes"));
  }
  *req = *in_message;
  return absl::OkStatus();
}

absl::Status ParseProto(std::string_view bytes, v1::WebSocketClientMessage* message, std::string* req) {
  using Case = v1::WebSocketClientMessage;
  if (!message->ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    message->Clear();
    return BadFrame("a message must be one serialized WebSocketClientMessage");
  }
  switch (message->message_case()) {
    case Case::kGenerate: {
      auto* generate = message->mutable_generate();
      RETURN_IF_ERROR(ReadReq(generate->mutable_req(), req));
      if (generate->traceparent().size() > base::kMaxTraceBytes ||
          generate->tracestate().size() > base::kMaxTraceBytes) {
        return BadFrame(
            absl::StrCat("traceparent and tracestate must each be at most ", base::kMaxTraceBytes, " bytes"));
      }
      // The service checks every range. Here only what the JSON form would reject as well.
      if (generate->request().request_id().empty()) return absl::OkStatus();
      return bridge::CheckIdempotencyKey(generate->request().request_id());
    }
    case Case::kResume:
      RETURN_IF_ERROR(ReadReq(message->mutable_resume()->mutable_req(), req));
      return CheckGenerationId(message->resume().generation_id());
    case Case::kCancel:
      return CheckGenerationId(message->cancel().generation_id());
    case Case::kDetach:
      return CheckGenerationId(message->detach().generation_id());
    case Case::kAuth:
    case Case::kPing:
      return absl::OkStatus();
    case Case::MESSAGE_NOT_SET:
      break;
  }
  return BadFrame("unknown message type; expected auth, generate, resume, cancel, detach or ping");
}

absl::Status ParseProtoAuth(std::string_view bytes, v1::WebSocketAuth* auth) {
  // The first byte identifies the message, so another message is rejected before it is parsed.
  constexpr char kAuthTag = v1::WebSocketClientMessage::kAuthFieldNumber << 3 | 2;
  v1::WebSocketClientMessage message;
  if (bytes.empty() || bytes.front() != kAuthTag ||
      !message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())) || !message.has_auth()) {
    return BadFrame("expected auth as the first message");
  }
  *auth = std::move(*message.mutable_auth());
  return absl::OkStatus();
}

// The number as the client wrote it: a whole number has no decimal point.
ordered_json Number(double t) {
  constexpr double kExact = 9007199254740992;  // 2^53
  if (t == std::trunc(t) && std::abs(t) <= kExact) return static_cast<int64_t>(t);
  return t;
}

ordered_json ProgressJson(const v1::Progress& progress) {
  std::string text;
  bridge::AppendProgressJson(progress, &text);
  return ordered_json::parse(text);
}

ordered_json ErrorJson(const v1::WebSocketError& error) {
  ordered_json out{{"code", error.code()}, {"message", error.message()}, {"status", error.status()}};
  if (!error.param().empty()) out["param"] = error.param();
  if (error.retry_after_ms() != 0) out["retry_after_ms"] = error.retry_after_ms();
  return out;
}

ordered_json MessageJson(const v1::WebSocketServerMessage& message) {
  using Case = v1::WebSocketServerMessage;
  ordered_json out;
  const auto begin = [&out, &message](const char* type) {
    out["type"] = type;
    if (!message.req().empty()) out["req"] = message.req();
  };
  switch (message.message_case()) {
    case Case::kHello:
      begin("hello");
      out["v"] = message.hello().version();
      out["max_streams"] = message.hello().max_streams();
      out["heartbeat_s"] = message.hello().heartbeat_seconds();
      out["resume_ttl_s"] = message.hello().resume_ttl_seconds();
      break;
    case Case::kAttached:
      begin("attached");
      out["gen"] = message.attached().generation_id();
      out["after"] = message.attached().after_seq();
      out["last_seq"] = message.attached().last_seq();
      if (message.attached().epoch() != 0) out["epoch"] = message.attached().epoch();
      out["status"] = bridge::StatusName(message.attached().status());
      break;
    case Case::kError:
      begin("error");
      if (!message.error().generation_id().empty()) out["gen"] = message.error().generation_id();
      out["error"] = ErrorJson(message.error());
      break;
    case Case::kPong:
      begin("pong");
      out["t"] = Number(message.pong().t());
      break;
    case Case::kGoaway:
      begin("goaway");
      out["reason"] = message.goaway().reason();
      out["deadline_ms"] = message.goaway().deadline_ms();
      break;
    case Case::kHeartbeat:
      begin("heartbeat");
      out["gen"] = message.heartbeat().generation_id();
      if (message.heartbeat().has_progress()) out.update(ProgressJson(message.heartbeat().progress()));
      break;
    case Case::kEvent:  // AppendEvent writes it.
    case Case::MESSAGE_NOT_SET:
      break;
  }
  return out;
}

std::string Dump(const ordered_json& value) {
  // Protobuf strings of clients are valid UTF-8, but an error message may contain any bytes.
  return value.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

void AppendEventProto(std::string_view req, const v1::GenerationEvent& event, std::string* out) {
  // Writes WebSocketServerMessage{event, req} without copying the event into a message.
  using google::protobuf::io::CodedOutputStream;
  constexpr uint8_t kLengthDelimited = 2;
  constexpr uint8_t kEventTag = v1::WebSocketServerMessage::kEventFieldNumber << 3 | kLengthDelimited;
  constexpr uint8_t kReqTag = v1::WebSocketServerMessage::kReqFieldNumber << 3 | kLengthDelimited;
  const auto event_bytes = static_cast<uint32_t>(event.ByteSizeLong());
  const auto req_bytes = static_cast<uint32_t>(req.size());
  size_t bytes = 1 + CodedOutputStream::VarintSize32(event_bytes) + event_bytes;
  if (!req.empty()) bytes += 1 + CodedOutputStream::VarintSize32(req_bytes) + req_bytes;
  const size_t before = out->size();
  out->resize(before + bytes);
  auto* p = reinterpret_cast<uint8_t*>(out->data() + before);
  *p++ = kEventTag;
  p = CodedOutputStream::WriteVarint32ToArray(event_bytes, p);
  p = event.SerializeWithCachedSizesToArray(p);
  if (req.empty()) return;
  *p++ = kReqTag;
  p = CodedOutputStream::WriteVarint32ToArray(req_bytes, p);
  CodedOutputStream::WriteRawToArray(req.data(), static_cast<int>(req_bytes), p);
}

}  // namespace

absl::Status NegotiateProtocol(std::string_view offered, Negotiated* negotiated) {
  *negotiated = {};
  if (absl::StripAsciiWhitespace(base::ToAbsl(offered)).empty()) return absl::OkStatus();
  for (const absl::string_view part : absl::StrSplit(base::ToAbsl(offered), ',')) {
    const absl::string_view name = absl::StripAsciiWhitespace(part);
    if (name == base::ToAbsl(kJsonProtocol)) {
      *negotiated = {Format::kJson, kJsonProtocol};
      return absl::OkStatus();
    }
    if (name == base::ToAbsl(kProtoProtocol)) {
      *negotiated = {Format::kProto, kProtoProtocol};
      return absl::OkStatus();
    }
  }
  return base::MakeError(absl::StatusCode::kInvalidArgument, "UNKNOWN_SUBPROTOCOL",
                         "unknown subprotocol; offer runnel.v1 or runnel.v1.proto, or none");
}

absl::Status ParseClientMessage(Format format, std::string_view bytes, v1::WebSocketClientMessage* message,
                                std::string* req) {
  message->Clear();
  req->clear();
  return format == Format::kJson ? ParseJson(bytes, message, req) : ParseProto(bytes, message, req);
}

absl::Status ParseAuth(Format format, std::string_view bytes, v1::WebSocketAuth* auth) {
  auth->Clear();
  return format == Format::kJson ? ParseJsonAuth(bytes, auth) : ParseProtoAuth(bytes, auth);
}

bool EndsWithinCharacter(std::string_view text) {
  for (size_t back = 1; back <= 3 && back <= text.size(); ++back) {
    const auto byte = static_cast<uint8_t>(text[text.size() - back]);
    if ((byte & 0xc0) == 0x80) continue;  // a continuation byte
    return byte >= 0xc0 && back < (byte >= 0xf0 ? 4u : byte >= 0xe0 ? 3u : 2u);
  }
  return false;
}

bool IsBadFrame(const absl::Status& status) { return base::DetailOf(status).reason == kBadFrame; }

void AppendMessage(Format format, const v1::WebSocketServerMessage& message, std::string* out) {
  if (format == Format::kProto) {
    message.AppendToString(out);
    return;
  }
  out->append(Dump(MessageJson(message)));
  if (message.attached().parts().empty()) return;
  out->pop_back();  // The closing brace.
  bridge::AppendOpenedParts(message.attached().parts(), out);
  out->push_back('}');
}

void AppendEvent(Format format, std::string_view gen, std::string_view req, v1::GenerationEvent* event,
                 std::string* out) {
  if (format == Format::kProto) {
    event->set_generation_id(gen.data(), gen.size());
    return AppendEventProto(req, *event, out);
  }
  bridge::AppendEventJson(gen, *event, out);
  if (req.empty()) return;
  out->pop_back();  // The closing brace.
  absl::StrAppend(out, ",\"req\":", Dump(ordered_json(std::string(req))), "}");
}

}  // namespace runnel::websocket
