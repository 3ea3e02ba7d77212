#include "services/inference/engines/upstream/response_parser.h"

#include <algorithm>
#include <limits>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "services/base/strings.h"
#include "services/inference/engines/upstream/gzip_inflater.h"

namespace runnel::inference {
namespace {

constexpr size_t kMaxChunkSizeDigits = 16;

// RFC 9110, 5.6.2.
bool IsToken(std::string_view text) {
  constexpr std::string_view kOthers = "!#$%&'*+-.^_`|~";
  return !text.empty() && std::all_of(text.begin(), text.end(), [&](unsigned char c) {
    return absl::ascii_isalnum(c) || kOthers.find(static_cast<char>(c)) != std::string_view::npos;
  });
}

std::string_view StripBlanks(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

bool Is(std::string_view a, std::string_view b) { return absl::EqualsIgnoreCase(base::ToAbsl(a), base::ToAbsl(b)); }

}  // namespace

UpstreamResponseParser::UpstreamResponseParser(const Limits& limits, Handler* handler)
    : limits_(limits), handler_(handler) {}

UpstreamResponseParser::~UpstreamResponseParser() = default;

UpstreamResponseParser::State UpstreamResponseParser::Feed(std::string_view bytes) {
  if (!bytes.empty()) begun_ = true;
  while (!bytes.empty() && state_ == State::kReading) {
    if (step_ == Step::kLength || step_ == Step::kChunkData || step_ == Step::kUntilClose) {
      const size_t size =
          step_ == Step::kUntilClose ? bytes.size() : static_cast<size_t>(std::min<uint64_t>(remaining_, bytes.size()));
      const std::string_view piece = bytes.substr(0, size);
      bytes.remove_prefix(size);
      if (step_ != Step::kUntilClose) remaining_ -= size;
      Body(piece);
      if (state_ != State::kReading || step_ == Step::kUntilClose || remaining_ > 0) continue;
      step_ == Step::kLength ? Finish() : void(step_ = Step::kChunkEnd);
      continue;
    }
    const size_t end = bytes.find('\n');
    const std::string_view piece = bytes.substr(0, end);
    if (line_.size() + piece.size() > limits_.max_line_bytes) {
      Fail("a line of its header is too long");
      break;
    }
    if (end == std::string_view::npos) {
      line_.append(piece);
      break;
    }
    bytes.remove_prefix(end + 1);
    header_bytes_ += line_.size() + piece.size() + 1;
    if (line_.empty()) {
      TakeLine(piece);
    } else {
      line_.append(piece);
      const std::string line = std::move(line_);
      line_.clear();
      TakeLine(line);
    }
  }
  if (state_ == State::kDone && !bytes.empty()) excess_ = true;
  return state_;
}

UpstreamResponseParser::State UpstreamResponseParser::OnEof() {
  keep_alive_ = false;
  if (state_ != State::kReading) return state_;
  if (step_ == Step::kUntilClose) {
    Finish();
  } else {
    Fail("it closed the connection");
  }
  return state_;
}

void UpstreamResponseParser::TakeLine(std::string_view line) {
  if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
  const bool sizes = step_ == Step::kChunkSize || step_ == Step::kChunkEnd;
  // Sizes come with every chunk for as long as the stream lasts; each is limited as a line.
  if (!sizes && header_bytes_ > limits_.max_header_bytes) return Fail("its header is too long");
  if (line.find('\0') != std::string_view::npos) return Fail("its header has a NUL");
  switch (step_) {
    case Step::kStatusLine:
      return TakeStatusLine(line);
    case Step::kHeaders:
      return line.empty() ? EndHeaders() : TakeHeader(line);
    case Step::kChunkSize:
      return TakeChunkSize(line);
    case Step::kChunkEnd:
      if (!line.empty()) return Fail("a chunk is longer than its size");
      step_ = Step::kChunkSize;
      return;
    case Step::kTrailers:
      return line.empty() ? Finish() : void();
    default:
      return;
  }
}

void UpstreamResponseParser::TakeStatusLine(std::string_view line) {
  // "HTTP/1.1 200 OK"; the reason may be absent, and so may the blank before it.
  const bool http = line.size() >= 12 && absl::StartsWith(base::ToAbsl(line), "HTTP/1.") &&
                    (line[7] == '0' || line[7] == '1') && line[8] == ' ' && (line.size() == 12 || line[12] == ' ');
  if (!http || !std::all_of(line.begin() + 9, line.begin() + 12, absl::ascii_isdigit)) {
    return Fail("its status line is not HTTP/1");
  }
  ResetHead();
  http_1_0_ = line[7] == '0';
  head_.status = (line[9] - '0') * 100 + (line[10] - '0') * 10 + (line[11] - '0');
  if (head_.status < 100 || head_.status > 599 || head_.status == 101) return Fail("its status is not possible");
  step_ = Step::kHeaders;
}

void UpstreamResponseParser::ResetHead() {
  head_ = {};
  headers_ = 0;
  closes_ = chunked_ = has_length_ = gzip_ = false;
}

void UpstreamResponseParser::TakeHeader(std::string_view line) {
  if (++headers_ > limits_.max_headers) return Fail("it has too many header fields");
  const size_t colon = line.find(':');
  // A line that begins with a blank continues the one before it in old HTTP (RFC 9112, 5.2): no current server does.
  if (colon == std::string_view::npos || !IsToken(line.substr(0, colon))) return Fail("a header field is malformed");
  TakeField(line.substr(0, colon), StripBlanks(line.substr(colon + 1)));
}

void UpstreamResponseParser::TakeField(std::string_view name, std::string_view value) {
  if (Is(name, "content-type")) {
    if (head_.content_type.empty()) head_.content_type = std::string(value);
  } else if (Is(name, "retry-after")) {
    if (head_.retry_after.empty()) head_.retry_after = std::string(value);
  } else if (Is(name, "content-length")) {
    TakeContentLength(value);
  } else if (Is(name, "transfer-encoding")) {
    if (chunked_ || !Is(value, "chunked")) return Fail("its transfer coding is not supported");
    chunked_ = true;
  } else if (Is(name, "content-encoding")) {
    gzip_ = Is(value, "gzip") || Is(value, "x-gzip");
    if (!gzip_ && !value.empty() && !Is(value, "identity")) Fail("its content coding is not supported");
  } else if (Is(name, "connection")) {
    for (const absl::string_view option : absl::StrSplit(base::ToAbsl(value), ',')) {
      closes_ |= absl::EqualsIgnoreCase(absl::StripAsciiWhitespace(option), "close");
    }
  }
}

void UpstreamResponseParser::TakeContentLength(std::string_view value) {
  uint64_t length = 0;
  const bool digits = !value.empty() && std::all_of(value.begin(), value.end(), absl::ascii_isdigit);
  if (!digits || !absl::SimpleAtoi(base::ToAbsl(value), &length) || (has_length_ && length != remaining_)) {
    return Fail("its content-length is malformed");
  }
  has_length_ = true;
  remaining_ = length;
}

void UpstreamResponseParser::EndHeaders() {
  if (head_.status < 200) {
    step_ = Step::kStatusLine;
    return;
  }
  // Two programs could see the end of such a response at different places (RFC 9112, 6.3).
  if (chunked_ && (has_length_ || http_1_0_)) return Fail("its length is ambiguous");
  const bool no_body = head_.status == 204 || head_.status == 304;
  keep_alive_ = !closes_ && !http_1_0_ && (no_body || chunked_ || has_length_);
  if (!handler_->OnHead(head_)) {
    state_ = State::kUnwanted;
    return;
  }
  if (no_body) return Finish();
  if (chunked_) {
    step_ = Step::kChunkSize;
  } else if (has_length_) {
    step_ = Step::kLength;
    if (remaining_ == 0) Finish();
  } else {
    step_ = Step::kUntilClose;
  }
}

void UpstreamResponseParser::TakeChunkSize(std::string_view line) {
  const std::string_view digits = StripBlanks(line.substr(0, line.find(';')));
  if (digits.empty() || digits.size() > kMaxChunkSizeDigits ||
      !std::all_of(digits.begin(), digits.end(), absl::ascii_isxdigit)) {
    return Fail("a chunk has no size");
  }
  remaining_ = 0;
  for (const char c : digits) {
    remaining_ =
        remaining_ * 16 + static_cast<uint64_t>(absl::ascii_isdigit(static_cast<unsigned char>(c))
                                                    ? c - '0'
                                                    : absl::ascii_tolower(static_cast<unsigned char>(c)) - 'a' + 10);
  }
  if (remaining_ > std::numeric_limits<uint64_t>::max() / 2) return Fail("a chunk has no size");
  step_ = remaining_ == 0 ? Step::kTrailers : Step::kChunkData;
  if (remaining_ == 0) header_bytes_ = 0;
}

void UpstreamResponseParser::Body(std::string_view bytes) {
  if (gzip_ && inflater_ == nullptr) inflater_ = std::make_unique<GzipInflater>();
  if (inflater_ == nullptr) {
    if (!handler_->OnBody(bytes)) state_ = State::kUnwanted;
    return;
  }
  switch (inflater_->Feed(bytes, [this](std::string_view decoded) { return handler_->OnBody(decoded); })) {
    case GzipInflater::Result::kOk:
      return;
    case GzipInflater::Result::kUnwanted:
      state_ = State::kUnwanted;
      return;
    case GzipInflater::Result::kCorrupt:
      return Fail("its gzip coding is corrupt");
  }
}

void UpstreamResponseParser::Finish() {
  if (inflater_ != nullptr && !inflater_->complete()) return Fail("its gzip coding is cut");
  state_ = State::kDone;
}

void UpstreamResponseParser::Fail(std::string_view error) {
  state_ = State::kFailed;
  error_ = error;
}

}  // namespace runnel::inference
