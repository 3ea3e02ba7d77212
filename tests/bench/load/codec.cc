#include "tests/bench/load/codec.h"

#include <array>
#include <charconv>

#include "absl/strings/str_cat.h"
#include "runnel/v1/websocket.pb.h"
#include "tests/bench/load/chat_codec.h"
#include "tests/bench/load/http_text.h"
#include "tests/bench/load/sse_codec.h"

namespace runnel::bench {
namespace {

constexpr size_t kNone = std::string::npos;

// A client frame. The mask may be zero.
std::string ClientFrame(unsigned char opcode, const std::string& payload) {
  std::string frame(1, static_cast<char>(0x80 | opcode));
  if (payload.size() < 126) {
    frame += static_cast<char>(0x80 | payload.size());
  } else {
    frame += static_cast<char>(0x80 | 126);
    frame += static_cast<char>(payload.size() >> 8);
    frame += static_cast<char>(payload.size() & 255);
  }
  return frame + std::string(4, '\0') + payload;
}

class WsCodec final : public Codec {
 public:
  WsCodec(const LoadOptions* options, int index) : options_(*options), index_(index) {}

  std::string Opening() override {
    const bool proto = options_.transport == Transport::kWsProto;
    const bool get = options_.transport == Transport::kWsGet;
    return absl::StrCat("GET ", get ? absl::StrCat(options_.path, index_) : "/v1/ws",
                        " HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
                        "sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n",
                        get ? "" : absl::StrCat("sec-websocket-protocol: runnel.v1", proto ? ".proto" : "", "\r\n"),
                        "\r\n");
  }

  std::string OnBytes(std::string* in, std::string* out, Sink* sink) override {
    if (!head_done_) {
      const std::string head = TakeHead(in);
      if (head.empty()) return "";
      if (!HasStatus(head, "101")) return FirstLine(head);
      head_done_ = true;
      if (options_.transport == Transport::kWsGet) {
        sink->OnOpened();
      } else {
        *out += GenerateFrame();
      }
    }
    size_t at = 0;
    std::string fault;
    while (fault.empty() && !sink->ended()) {
      const std::string_view rest = std::string_view(*in).substr(at);
      const size_t size = FrameSize(rest);
      if (size == 0 || rest.size() < size) break;
      fault = OnFrame(static_cast<unsigned char>(rest[0]), rest.substr(payload_at_, size - payload_at_), out, sink);
      at += size;
    }
    in->erase(0, at);
    return fault;
  }

 private:
  std::string GenerateFrame() const {
    if (options_.transport == Transport::kWs) {
      return ClientFrame(
          1, absl::StrCat("{\"type\":\"generate\",\"req\":\"r\",\"body\":", RequestBody(options_, index_), "}"));
    }
    v1::WebSocketClientMessage message;
    message.mutable_generate()->set_req("r");
    FillRequest(options_, index_, message.mutable_generate()->mutable_request());
    return ClientFrame(2, message.SerializeAsString());
  }

  // Returns the length of the frame at the front, including its header, and sets payload_at_ to the length of the
  // header. 0 if the header is not complete.
  size_t FrameSize(std::string_view bytes) {
    if (bytes.size() < 2) return 0;
    const auto byte = [&bytes](size_t i) { return static_cast<size_t>(static_cast<unsigned char>(bytes[i])); };
    size_t size = byte(1) & 127;
    const size_t wide = size == 126 ? 2 : size == 127 ? 8 : 0;
    payload_at_ = 2 + wide;
    if (bytes.size() < payload_at_) return 0;
    if (wide > 0) size = 0;
    for (size_t i = 0; i < wide; ++i) size = size << 8 | byte(2 + i);
    return payload_at_ + size;
  }

  std::string OnFrame(unsigned char first, std::string_view payload, std::string* out, Sink* sink) {
    switch (first) {
      case 0x81:
        if (payload.find("\"type\":\"error\"") != kNone) return std::string(payload);
        if (!ReadEventJson(payload, &event_)) return absl::StrCat("invalid event ", std::string(payload));
        break;
      case 0x82:
        if (!message_.ParseFromArray(payload.data(), static_cast<int>(payload.size()))) return "invalid Protobuf";
        if (message_.has_error()) return message_.error().ShortDebugString();
        event_.kind = Event::Kind::kOther;
        if (message_.has_event() && !ReadEventProto(message_.event(), &event_)) return "invalid event";
        break;
      case 0x89:
        *out += ClientFrame(10, std::string(payload));
        return "";
      case 0x88:
        return "closed by the server";
      default:
        return first == 0x8A ? "" : "a frame of an unknown kind";
    }
    sink->OnEvent(&event_);
    return "";
  }

  const LoadOptions& options_;
  const int index_;
  bool head_done_ = false;
  size_t payload_at_ = 0;
  Event event_;
  v1::WebSocketServerMessage message_;
};

// Long polling over one persistent connection.
class PollCodec final : public Codec {
 public:
  explicit PollCodec(std::string body) : body_(std::move(body)) {}

  std::string Opening() override { return PostRequest("/v1/generations", body_, "application/json"); }

  std::string OnBytes(std::string* in, std::string* out, Sink* sink) override {
    for (;;) {
      const size_t end = in->find("\r\n\r\n");
      if (end == kNone) return "";
      std::string copy = in->substr(0, end + 4);
      const std::string head = TakeHead(&copy);
      const size_t at = head.find("content-length: ");
      size_t length = 0;
      if (at == kNone || std::from_chars(head.data() + at + 16, head.data() + head.size(), length).ec != std::errc()) {
        return absl::StrCat("no length: ", FirstLine(head));
      }
      if (in->size() < end + 4 + length) return "";
      const std::string body = in->substr(end + 4, length);
      in->erase(0, end + 4 + length);
      if (!HasStatus(head, id_.empty() ? "201" : "200")) return FirstLine(head);
      if (!OnBody(body, sink)) return "invalid response";
      if (sink->ended()) return "";
      *out += absl::StrCat("GET /v1/generations/", id_, "?after=", sink->last(),
                           "&wait=20 HTTP/1.1\r\nhost: localhost\r\n\r\n");
    }
  }

 private:
  bool OnBody(std::string_view body, Sink* sink) {
    if (id_.empty()) {
      const size_t at = body.find("\"id\":\"");
      if (at == kNone) return false;
      id_ = std::string(body.substr(at + 6, body.find('"', at + 6) - at - 6));
      return true;
    }
    // Every event object starts like this. A text cannot contain it, because quotes in a text are escaped.
    constexpr std::string_view kBegin = "{\"type\":";
    for (size_t at = body.find(kBegin); at != kNone;) {
      const size_t next = body.find(kBegin, at + 1);
      if (!ReadEventJson(body.substr(at, next == kNone ? kNone : next - at), &event_)) return false;
      sink->OnEvent(&event_);
      at = next;
    }
    return true;
  }

  const std::string body_;
  std::string id_;
  Event event_;
};

}  // namespace

std::unique_ptr<Codec> MakeCodec(const LoadOptions* options, int index) {
  switch (options->transport) {
    case Transport::kSseGet:
      return std::make_unique<SseCodec>(
          absl::StrCat("GET ", options->path, index,
                       " HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\r\n"),
          /*opened_by_head=*/true);
    case Transport::kChat:
      return std::make_unique<ChatCodec>(
          PostRequest("/v1/chat/completions", RequestBody(*options, index), "text/event-stream"));
    case Transport::kPoll:
      return std::make_unique<PollCodec>(RequestBody(*options, index));
    case Transport::kWs:
    case Transport::kWsProto:
    case Transport::kWsGet:
      return std::make_unique<WsCodec>(options, index);
    default:
      return std::make_unique<SseCodec>(
          PostRequest("/v1/generations", RequestBody(*options, index), "text/event-stream"),
          /*opened_by_head=*/false);
  }
}

}  // namespace runnel::bench
