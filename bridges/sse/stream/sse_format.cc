#include "bridges/sse/stream/sse_format.h"

#include <array>
#include <charconv>

#include "bridges/wire/event_json.h"
#include "bridges/wire/part_json.h"

namespace runnel::sse {
namespace {

constexpr std::string_view kForbidden("\r\n\0", 3);

void AppendNumber(uint64_t number, std::string* out) {
  std::array<char, 20> digits;
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), number).ptr;
  out->append(digits.data(), static_cast<size_t>(end - digits.data()));
}

void AppendRetry(uint32_t retry_ms, std::string* out) {
  if (retry_ms == 0) return;
  out->append("retry: ");
  AppendNumber(retry_ms, out);
  out->push_back('\n');
}

void AppendData(std::string_view data, std::string* out) {
  for (;;) {
    const size_t end = data.find_first_of("\r\n");
    out->append("data: ").append(data.substr(0, end)).push_back('\n');
    if (end == std::string_view::npos) return;
    const bool crlf = data[end] == '\r' && end + 1 < data.size() && data[end + 1] == '\n';
    data.remove_prefix(end + (crlf ? 2 : 1));
  }
}

}  // namespace

absl::Status AppendSseMessage(const SseMessage& message, std::string* out) {
  if (message.id.find_first_of(kForbidden) != std::string_view::npos) {
    return absl::InvalidArgumentError("an SSE id must not contain CR, LF or NUL");
  }
  if (message.event.find_first_of(kForbidden) != std::string_view::npos) {
    return absl::InvalidArgumentError("an SSE event name must not contain CR, LF or NUL");
  }
  if (message.event == "error" || message.event == "open") {
    return absl::InvalidArgumentError("an SSE event must not be named error or open, which are events of EventSource");
  }
  AppendRetry(message.retry_ms, out);
  if (!message.id.empty()) out->append("id: ").append(message.id).push_back('\n');
  if (!message.event.empty()) out->append("event: ").append(message.event).push_back('\n');
  AppendData(message.data, out);
  out->push_back('\n');
  return absl::OkStatus();
}

void AppendSseEvent(std::string_view gen, const v1::GenerationEvent& event, uint32_t retry_ms, std::string* out) {
  AppendRetry(retry_ms, out);
  out->append("id: ").append(gen).push_back(':');
  AppendNumber(event.seq(), out);
  if (event.epoch() != 0) {
    out->push_back('.');
    AppendNumber(event.epoch(), out);
  }
  out->append("\nevent: ").append(bridge::EventName(event)).append("\ndata: ");
  bridge::AppendEventJson(gen, event, out);
  out->append("\n\n");
}

void AppendAttached(std::string_view gen, const bridge::GenerationInfo& opened, uint32_t retry_ms, std::string* out) {
  AppendRetry(retry_ms, out);
  out->append("event: attached\ndata: {\"type\":\"attached\",\"gen\":\"").append(gen);
  bridge::AppendField("\",\"after\":", opened.after_seq, out);
  bridge::AppendField(",\"last_seq\":", opened.last_seq, out);
  bridge::AppendEpoch(opened.epoch, out);
  bridge::AppendField(",\"status\":", bridge::StatusName(opened.status), out);
  bridge::AppendOpenedParts(opened.parts, out);
  out->append("}\n\n");
}

void AppendHeartbeat(const v1::Progress& progress, std::string* out) {
  out->append(": hb ");
  bridge::AppendProgressJson(progress, out);
  out->push_back('\n');
}

}  // namespace runnel::sse
