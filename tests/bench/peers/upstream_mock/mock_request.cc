#include "tests/bench/peers/upstream_mock/mock_request.h"

#include <charconv>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/ascii.h"

namespace runnel::bench {
namespace {

using nlohmann::json;

// The value of a header in a head of lower case; empty if there is none.
std::string_view Header(std::string_view head, std::string_view line_begin) {
  const size_t at = head.find(line_begin);
  if (at == std::string_view::npos) return {};
  const size_t begin = head.find_first_not_of(' ', at + line_begin.size());
  return head.substr(begin, head.find('\r', begin) - begin);
}

bool ReadHead(std::string_view bytes, MockHead* head) {
  const std::string_view line = bytes.substr(0, bytes.find('\r'));
  const size_t path = line.find(' ');
  const size_t version = line.rfind(' ');
  if (path == std::string_view::npos || version <= path) return false;
  head->method = line.substr(0, path);
  head->path = line.substr(path + 1, version - path - 1);
  head->http10 = line.substr(version + 1) == "HTTP/1.0";
  const std::string lower = absl::AsciiStrToLower({bytes.data(), bytes.size()});
  head->close = head->http10 || Header(lower, "\r\nconnection:") == "close";
  head->body_bytes = 0;
  if (!Header(lower, "\r\ntransfer-encoding:").empty()) return false;
  const std::string_view length = Header(lower, "\r\ncontent-length:");
  return length.empty() ||
         std::from_chars(length.data(), length.data() + length.size(), head->body_bytes).ec == std::errc();
}

// The last message's content, which is a string or an array of parts; or the prompt.
std::string TextOf(const json& body, bool chat) {
  if (!chat) return body.value("prompt", "");
  const json& messages = body.at("messages");
  const json& content = messages.at(messages.size() - 1).at("content");
  return content.is_array() ? content.at(content.size() - 1).at("text").get<std::string>() : content.get<std::string>();
}

}  // namespace

MockParse TakeRequest(std::string* in, MockHead* head, std::string* body) {
  const size_t end = in->find("\r\n\r\n");
  if (end == std::string::npos) return in->size() > kMaxHeadBytes ? MockParse::kInvalid : MockParse::kPartial;
  if (end > kMaxHeadBytes || !ReadHead(std::string_view(*in).substr(0, end + 2), head) ||
      head->body_bytes > kMaxBodyBytes) {
    return MockParse::kInvalid;
  }
  if (in->size() < end + 4 + head->body_bytes) return MockParse::kPartial;
  *body = in->substr(end + 4, head->body_bytes);
  in->erase(0, end + 4 + head->body_bytes);
  return MockParse::kComplete;
}

std::string ReadMockRequest(const std::string& body, bool chat, MockRequest* request) {
  request->chat = chat;
  try {
    const json parsed = json::parse(body);
    if (!parsed.value("stream", false)) return "only \\\"stream\\\": true is supported";
    request->model = parsed.value("model", "mock");
    const auto options = parsed.find("stream_options");
    request->include_usage = options != parsed.end() && options->is_object() && options->value("include_usage", false);
    if (!ReadPlan(TextOf(parsed, chat), &request->plan)) return "the prompt is not a plan";
  } catch (const json::exception&) {
    return "the body is not a request";
  }
  return "";
}

}  // namespace runnel::bench
