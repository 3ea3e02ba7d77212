#include "tests/bench/load/sse_codec.h"

#include <charconv>

#include "absl/strings/str_cat.h"
#include "tests/bench/load/event.h"
#include "tests/bench/load/http_text.h"

namespace runnel::bench {

std::string SseCodec::OnBytes(std::string* in, std::string*, Sink* sink) {
  if (!head_done_) {
    const std::string head = TakeHead(in);
    if (head.empty()) return "";
    if (!HasStatus(head, "200")) return FirstLine(head);
    chunked_ = head.find("transfer-encoding: chunked") != std::string::npos;
    head_done_ = true;
    if (opened_by_head_) sink->OnOpened();
  }
  if (chunked_) {
    if (!Unchunk(in)) return "invalid chunk";
    return ParseLines(&text_, sink);
  }
  return ParseLines(in, sink);
}

std::string SseCodec::OnData(std::string_view data, Sink* sink) {
  if (!ReadEventJson(data, &event_)) return absl::StrCat("invalid event ", std::string(data));
  sink->OnEvent(&event_);
  return "";
}

bool SseCodec::Unchunk(std::string* in) {
  size_t at = 0;
  for (;;) {
    const size_t line = in->find("\r\n", at);
    if (line == std::string::npos) break;
    size_t size = 0;
    if (std::from_chars(in->data() + at, in->data() + line, size, 16).ec != std::errc()) return false;
    if (in->size() < line + 2 + size + 2) break;
    text_.append(*in, line + 2, size);
    at = line + 2 + size + 2;
    if (size == 0) break;
  }
  in->erase(0, at);
  return true;
}

std::string SseCodec::ParseLines(std::string* text, Sink* sink) {
  size_t at = 0;
  for (size_t end; !sink->ended() && (end = text->find('\n', at)) != std::string::npos; at = end + 1) {
    const std::string_view line(text->data() + at, end - at);
    if (!line.starts_with("data: ")) continue;
    if (std::string fault = OnData(line.substr(6), sink); !fault.empty()) return fault;
  }
  text->erase(0, at);
  if (text->empty() && text->capacity() > 4096) std::string().swap(*text);
  return "";
}

}  // namespace runnel::bench
