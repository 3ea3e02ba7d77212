#include "services/base/http_parser.h"

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <exception>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/base/host_name.h"
#include "services/base/strings.h"

namespace runnel::base {
namespace {

namespace http = boost::beast::http;

constexpr std::string_view kCrlf = "\r\n";
// The request line without its target: method, blanks and version.
constexpr size_t kLineBesideTarget = 48;
// Digits of a chunk's size, including leading zeros.
constexpr size_t kMaxSizeDigits = 16;
constexpr size_t kFirstBodyBytes = 4 << 10;

bool IsTokenChar(char c) {
  return absl::ascii_isalnum(static_cast<unsigned char>(c)) || absl::StrContains("!#$%&'*+-.^_`|~", c);
}

bool IsControl(char c) {
  const auto byte = static_cast<unsigned char>(c);
  return (byte < 0x20 && c != '\t') || byte == 0x7f;
}

bool EqualsIgnoreCase(std::string_view a, std::string_view b) { return absl::EqualsIgnoreCase(ToAbsl(a), ToAbsl(b)); }

std::string_view Trim(std::string_view text) {
  const absl::string_view trimmed = absl::StripAsciiWhitespace(ToAbsl(text));
  return {trimmed.data(), trimmed.size()};
}

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  const char lower = absl::ascii_tolower(static_cast<unsigned char>(c));
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

}  // namespace

std::string_view HttpHead::Header(std::string_view lower_case_name) const {
  for (const auto& [name, value] : headers) {
    if (name == lower_case_name) return value;
  }
  return {};
}

size_t HttpHead::Count(std::string_view lower_case_name) const {
  return static_cast<size_t>(std::count_if(headers.begin(), headers.end(),
                                           [&](const auto& header) { return header.first == lower_case_name; }));
}

std::string HttpHead::HeaderList(std::string_view lower_case_name) const {
  std::string list;
  for (const auto& [name, value] : headers) {
    if (name != lower_case_name) continue;
    if (!list.empty()) list += ", ";
    list += value;
  }
  return list;
}

size_t HttpParser::Feed(std::string_view bytes) {
  switch (state_) {
    case State::kHead:
      return FeedHead(bytes);
    case State::kBody:
      return chunked_ ? FeedChunks(bytes) : FeedBody(bytes);
    case State::kDone:
    case State::kFailed:
      break;
  }
  return 0;
}

bool HttpParser::Fail(int status, std::string_view message) {
  state_ = State::kFailed;
  error_ = {status, std::string(message)};
  head_bytes_ = std::string();
  body_ = std::string();
  return false;
}

// RFC 9112, 2.2: some clients send an empty line after a body.
bool HttpParser::SkipEmptyLines(std::string_view bytes, size_t* used) {
  for (; *used < bytes.size(); ++*used) {
    const char c = bytes[*used];
    if (empty_line_cr_ ? c != '\n' : c != '\r') break;
    empty_line_cr_ = !empty_line_cr_;
    if (++empty_bytes_ > limits_.max_header_bytes) return Fail(400, "too many empty lines before the request");
  }
  if (*used == bytes.size()) return true;
  if (empty_line_cr_ || !IsTokenChar(bytes[*used])) return Fail(400, "the request is not HTTP/1.1");
  return true;
}

size_t HttpParser::FeedHead(std::string_view bytes) {
  size_t used = 0;
  if (head_bytes_.empty() && !SkipEmptyLines(bytes, &used)) return used;
  while (used < bytes.size()) {
    const size_t line_end = bytes.find('\n', used);
    const size_t end = line_end == std::string_view::npos ? bytes.size() : line_end + 1;
    const bool in_request_line = line_begin_ == 0;
    const size_t limit = in_request_line
                             ? std::min(limits_.max_header_bytes, limits_.max_target_bytes + kLineBesideTarget)
                             : limits_.max_header_bytes;
    if (head_bytes_.size() + (end - used) > limit) {
      in_request_line ? Fail(414, "the target of the request is too long")
                      : Fail(431, "the header of the request is too large");
      return used;
    }
    head_bytes_.append(bytes.substr(used, end - used));
    used = end;
    if (line_end == std::string_view::npos) break;
    if (!FinishLine() || state_ != State::kHead) break;
  }
  return used;
}

// False if the line is malformed. Ends the head with an empty line.
bool HttpParser::FinishLine() {
  const std::string_view line = std::string_view(head_bytes_).substr(line_begin_);
  if (line.size() < kCrlf.size() || line.find('\r') != line.size() - kCrlf.size()) {
    return Fail(400, "a line of the request's header does not end with CRLF");
  }
  const bool last = line == kCrlf;
  line_begin_ = head_bytes_.size();
  if (last) FinishHead();
  return true;
}

void HttpParser::FinishHead() {
  parsed_head_bytes_ = head_bytes_.size();
  overhead_ = head_bytes_.size();
  bool good = false;
  // Beast's containers throw for a field above 64 KiB.
  try {
    good = ParseHead();
  } catch (const std::exception&) {
    Fail(431, "a header field of the request is too large");
  }
  head_bytes_ = std::string();
  if (good) state_ = head_.has_body ? State::kBody : State::kDone;
}

bool HttpParser::ParseHead() {
  http::request_parser<http::empty_body> parser;
  parser.header_limit(UINT32_MAX);  // the limit was kept while the bytes came
  parser.body_limit(boost::none);
  boost::system::error_code ec;
  parser.put(boost::asio::buffer(head_bytes_), ec);
  if (ec || !parser.is_header_done()) return Fail(400, "the request is not HTTP/1.1");
  const auto& message = parser.get();
  head_.method = std::string(message.method_string());
  head_.target = std::string(message.target());
  head_.http_1_0 = message.version() < 11;
  head_.keep_alive = parser.keep_alive();
  for (const auto& field : message) {
    if (head_.headers.size() == limits_.max_headers) return Fail(431, "the request has too many header fields");
    std::string name(field.name_string());
    absl::AsciiStrToLower(&name);
    head_.headers.emplace_back(std::move(name), std::string(field.value()));
  }
  chunked_ = parser.chunked();
  remaining_ = parser.content_length().value_or(0);
  return ReadTarget() && ReadFraming();
}

// What the body is (RFC 9112, 6.3), and whether it can be read at all.
bool HttpParser::ReadFraming() {
  if (head_.Count("transfer-encoding") > 0 && !ReadTransferCoding(head_.HeaderList("transfer-encoding"))) return false;
  head_.has_body = chunked_ || remaining_ > 0;
  if (remaining_ > limits_.max_body_bytes) return Fail(413, "the body of the request is too large");
  const std::string coding = head_.HeaderList("content-encoding");
  if (!coding.empty() && !EqualsIgnoreCase(coding, "identity")) {
    return Fail(415, "the body of a request must not be encoded: send it without Content-Encoding");
  }
  // RFC 9110, 10.1.1: a server ignores an expectation of HTTP/1.0.
  if (head_.Count("expect") > 0 && !head_.http_1_0) {
    if (!EqualsIgnoreCase(head_.HeaderList("expect"), "100-continue")) {
      return Fail(417, "the only expectation supported is 100-continue");
    }
    head_.expects_continue = head_.has_body;
  }
  return true;
}

bool HttpParser::ReadTransferCoding(const std::string& coding) {
  if (head_.http_1_0) return Fail(400, "HTTP/1.0 does not have Transfer-Encoding");
  if (head_.Count("content-length") > 0) {
    return Fail(400, "the request has both Transfer-Encoding and Content-Length");
  }
  if (EqualsIgnoreCase(coding, "chunked")) {
    chunked_ = true;
    return true;
  }
  // Where the body ends is known only if `chunked` is last, and only once (RFC 9112, 6.3 and 6.1).
  const size_t comma = coding.rfind(',');
  const bool chunked_last =
      comma != std::string::npos && EqualsIgnoreCase(Trim(std::string_view(coding).substr(comma + 1)), "chunked");
  if (!chunked_last || absl::StrContains(absl::AsciiStrToLower(coding.substr(0, comma)), "chunked")) {
    return Fail(400, "Transfer-Encoding must be chunked, once and last");
  }
  return Fail(501, "the only transfer coding supported is chunked");
}

// The four forms of a target (RFC 9112, 3.2). Brings it to origin form.
bool HttpParser::ReadTarget() {
  std::string& target = head_.target;
  if (head_.method == "CONNECT") return Fail(501, "CONNECT is not supported: this is not a proxy");
  if (target.size() > limits_.max_target_bytes) return Fail(414, "the target of the request is too long");
  if (absl::StartsWith(target, "/") || (target == "*" && head_.method == "OPTIONS")) return ReadHost("");
  const size_t scheme = target.find("://");
  const std::string_view name = std::string_view(target).substr(0, std::min(scheme, target.size()));
  if (scheme == std::string::npos || !(EqualsIgnoreCase(name, "http") || EqualsIgnoreCase(name, "https"))) {
    return Fail(400, "the target of the request is neither a path nor an http URL");
  }
  const size_t begin = scheme + 3;
  const size_t end = std::min(target.find_first_of("/?#", begin), target.size());
  const std::string authority = target.substr(begin, end - begin);
  target.erase(0, end);
  if (target.empty() && head_.method == "OPTIONS") target = "*";
  if (target.empty() || target.front() == '?' || target.front() == '#') target.insert(0, "/");
  if (!IsWellFormedAuthority(authority)) return Fail(400, "the URL of the request has a malformed host");
  return ReadHost(authority);
}

// RFC 9112, 3.2: rejects anything but one well-formed Host, because another server might read a different host from it.
bool HttpParser::ReadHost(std::string_view authority_of_target) {
  const size_t count = head_.Count("host");
  if (count > 1) return Fail(400, "the request has more than one Host");
  if (count == 0) {
    if (!head_.http_1_0) return Fail(400, "the request has no Host");
    if (!authority_of_target.empty()) head_.headers.emplace_back("host", std::string(authority_of_target));
    return true;
  }
  if (!IsWellFormedAuthority(head_.Header("host"))) return Fail(400, "the Host of the request is malformed");
  if (authority_of_target.empty()) return true;
  for (auto& [name, value] : head_.headers) {
    if (name == "host") value = std::string(authority_of_target);
  }
  return true;
}

size_t HttpParser::FeedBody(std::string_view bytes) {
  const std::string_view part = bytes.substr(0, static_cast<size_t>(std::min<uint64_t>(remaining_, bytes.size())));
  AppendToBody(part);
  remaining_ -= part.size();
  if (remaining_ == 0) state_ = State::kDone;
  return part.size();
}

// Memory grows with the bytes that have arrived, not with the announced length.
void HttpParser::AppendToBody(std::string_view bytes) {
  const size_t needed = body_.size() + bytes.size();
  if (needed > body_.capacity()) {
    const size_t most = chunked_ ? limits_.max_body_bytes : body_.size() + static_cast<size_t>(remaining_);
    body_.reserve(std::max(needed, std::min(most, std::max(kFirstBodyBytes, body_.capacity() * 2))));
  }
  body_.append(bytes);
}

size_t HttpParser::FeedChunks(std::string_view bytes) {
  size_t used = 0;
  while (used < bytes.size() && state_ == State::kBody) {
    if (chunk_ == Chunk::kData) {
      const std::string_view part =
          bytes.substr(used, static_cast<size_t>(std::min<uint64_t>(remaining_, bytes.size() - used)));
      AppendToBody(part);
      remaining_ -= part.size();
      used += part.size();
      if (remaining_ == 0) chunk_ = Chunk::kDataCr;
    } else if (FeedChunkByte(bytes[used])) {
      ++used;
    } else if (state_ != State::kFailed) {
      Fail(400, "the chunks of the request's body are malformed");
    }
  }
  return used;
}

// False if the byte is not allowed there.
bool HttpParser::FeedChunkByte(char c) {
  const auto become = [this](Chunk next) {
    chunk_ = next;
    return true;
  };
  switch (chunk_) {
    case Chunk::kSize:
      return FeedSizeByte(c);
    case Chunk::kBeforeExtension:
      return CountOverhead() && (c == ' ' || c == '\t' || (c == ';' && become(Chunk::kExtension)));
    case Chunk::kExtension:
      if (c == '\r') return become(Chunk::kSizeEnd);
      return CountOverhead() && !IsControl(c);
    case Chunk::kSizeEnd:
      size_digits_ = 0;
      return c == '\n' && become(remaining_ == 0 ? Chunk::kTrailer : Chunk::kData);
    case Chunk::kDataCr:
      return c == '\r' && become(Chunk::kDataEnd);
    case Chunk::kDataEnd:
      return c == '\n' && become(Chunk::kSize);
    case Chunk::kData:
      break;
    case Chunk::kTrailer:
    case Chunk::kTrailerName:
    case Chunk::kTrailerValue:
    case Chunk::kTrailerEnd:
    case Chunk::kEnd:
      return FeedTrailerByte(c);
  }
  return false;
}

bool HttpParser::FeedSizeByte(char c) {
  const int digit = HexDigit(c);
  if (digit < 0) {
    if (size_digits_ == 0) return false;
    chunk_ = c == '\r' ? Chunk::kSizeEnd : c == ';' ? Chunk::kExtension : Chunk::kBeforeExtension;
    return c == '\r' || (CountOverhead() && (c == ';' || c == ' ' || c == '\t'));
  }
  if (++size_digits_ > kMaxSizeDigits) return false;
  remaining_ = remaining_ * 16 + static_cast<uint64_t>(digit);
  if (remaining_ > limits_.max_body_bytes - body_.size()) return Fail(413, "the body of the request is too large");
  return true;
}

// Trailers are checked and dropped: no request needs one.
bool HttpParser::FeedTrailerByte(char c) {
  if (!CountOverhead()) return false;
  switch (chunk_) {
    case Chunk::kTrailer:
      chunk_ = c == '\r' ? Chunk::kEnd : Chunk::kTrailerName;
      return c == '\r' || IsTokenChar(c);
    case Chunk::kTrailerName:
      if (c == ':') chunk_ = Chunk::kTrailerValue;
      return c == ':' || IsTokenChar(c);
    case Chunk::kTrailerValue:
      if (c == '\r') chunk_ = Chunk::kTrailerEnd;
      return c == '\r' || !IsControl(c);
    case Chunk::kTrailerEnd:
      chunk_ = Chunk::kTrailer;
      return c == '\n';
    default:
      if (c == '\n') state_ = State::kDone;
      return c == '\n';
  }
}

// After a head as large as the limit, there is still room for the end of the last chunk.
bool HttpParser::CountOverhead() {
  if (++overhead_ <= limits_.max_header_bytes + kCrlf.size()) return true;
  Fail(431, "the trailers or chunk extensions of the request are too large");
  return false;
}

}  // namespace runnel::base
