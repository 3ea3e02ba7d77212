// Server-sent events: whatever is written must be read back, by the WHATWG's algorithm, as one equal message. If the
// first byte is `e`, the rest is an event as Protobuf; otherwise it is a message whose id, event and data are separated
// by 0x1f.
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "bridges/sse/stream/sse_format.h"
#include "google/protobuf/stubs/logging.h"
#include "tests/fuzz/fuzz_check.h"

namespace runnel::sse {
namespace {

constexpr char kGen[] = "gen_aaaaaaaaaaaaaaaaaaaaaaaaaa";

struct Message {
  std::string id, event, data;
};

// Lines end with LF, CR or CRLF.
std::vector<std::string> Lines(std::string_view text) {
  std::vector<std::string> lines(1);
  for (size_t i = 0; i < text.size(); i++) {
    if (text[i] != '\r' && text[i] != '\n') {
      lines.back() += text[i];
      continue;
    }
    if (text[i] == '\r' && i + 1 < text.size() && text[i + 1] == '\n') i++;
    lines.emplace_back();
  }
  return lines;
}

std::vector<Message> Read(std::string_view text) {
  std::vector<Message> messages;
  Message message;
  bool has_data = false;
  std::vector<std::string> lines = Lines(text);
  lines.pop_back();  // Not terminated.
  for (const std::string& line : lines) {
    if (line.empty()) {
      if (has_data) messages.push_back(message);
      message = {message.id, "", ""};
      has_data = false;
      continue;
    }
    const size_t colon = line.find(':');
    const std::string field = line.substr(0, colon);
    std::string value = colon == std::string::npos ? "" : line.substr(colon + 1);
    if (!value.empty() && value[0] == ' ') value.erase(0, 1);
    if (field == "id") message.id = value;
    if (field == "event") message.event = value;
    if (field == "data") message.data += (has_data ? "\n" : "") + value;
    has_data = has_data || field == "data";
  }
  return messages;
}

void RunMessage(std::string_view input) {
  std::string parts[3];
  size_t part = 0;
  for (const char c : input) {
    if (c == '\x1f' && part < 2) {
      part++;
    } else {
      parts[part] += c;
    }
  }
  SseMessage message;
  message.id = parts[0];
  message.event = parts[1];
  message.data = parts[2];
  std::string out;
  if (!AppendSseMessage(message, &out).ok()) {
    FUZZ_CHECK(out.empty());
    return;
  }
  const std::vector<Message> read = Read(out);
  FUZZ_CHECK(read.size() == 1);
  FUZZ_CHECK(read[0].id == parts[0]);
  FUZZ_CHECK(read[0].event == parts[1]);
  FUZZ_CHECK(Lines(read[0].data) == Lines(parts[2]));
}

void RunEvent(std::string_view input) {
  v1::GenerationEvent event;
  if (!event.ParseFromArray(input.data(), static_cast<int>(input.size()))) return;
  if (event.payload_case() == v1::GenerationEvent::PAYLOAD_NOT_SET) return;
  std::string out;
  AppendSseEvent(kGen, event, 0, &out);
  const std::vector<Message> read = Read(out);
  FUZZ_CHECK(read.size() == 1);
  FUZZ_CHECK(read[0].id == std::string(kGen) + ":" + std::to_string(event.seq()));
  const auto json = nlohmann::json::parse(read[0].data, nullptr, false);
  FUZZ_CHECK(json.is_object());
  FUZZ_CHECK(json["type"] == read[0].event);
  FUZZ_CHECK(json["seq"] == event.seq());
  if (event.has_delta()) FUZZ_CHECK(json["text"] == event.delta().text());
}

}  // namespace
}  // namespace runnel::sse

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static google::protobuf::LogHandler* const quiet = google::protobuf::SetLogHandler(nullptr);
  static_cast<void>(quiet);
  if (size == 0) return 0;
  const std::string_view input(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] == 'e') {
    runnel::sse::RunEvent(input);
  } else {
    runnel::sse::RunMessage(input);
  }
  return 0;
}
