#include "services/base/http_parser.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/base/strings.h"

namespace runnel::base {
namespace {

using State = HttpParser::State;
using std::string_literals::operator""s;  // NOLINT(misc-unused-using-decls): clang-tidy 14 overlooks its uses

constexpr HttpLimits kLimits{.max_header_bytes = 512, .max_target_bytes = 100, .max_headers = 8, .max_body_bytes = 64};

// The result of a request, however its bytes are split.
struct Outcome {
  State state = State::kHead;
  int status = 0;
  std::string method;
  std::string target;
  std::string host;
  std::string body;
  std::string rest;  // not consumed
  bool http_1_0 = false;
  bool keep_alive = true;
  bool expects_continue = false;

  bool operator==(const Outcome&) const = default;
};

std::ostream& operator<<(std::ostream& out, const Outcome& outcome) {
  return out << static_cast<int>(outcome.state) << ' ' << outcome.status << ' ' << outcome.method << ' '
             << outcome.target << ' ' << outcome.host << " body '" << outcome.body << "' rest '" << outcome.rest << "'";
}

// Feeds the pieces as a connection does: bytes that were not consumed are fed again, followed by the next piece.
Outcome Feed(const std::vector<std::string_view>& pieces) {
  HttpParser parser(kLimits);
  std::string pending;
  for (const std::string_view piece : pieces) {
    pending += piece;
    for (size_t used = 1; used > 0;) {
      used = parser.Feed(pending);
      EXPECT_LE(used, pending.size());
      pending.erase(0, used);
    }
    EXPECT_LE(parser.buffered(), 4 * (kLimits.max_header_bytes + kLimits.max_body_bytes));
    if (parser.state() == State::kFailed) break;
  }
  Outcome outcome;
  outcome.state = parser.state();
  if (outcome.state == State::kFailed) {
    outcome.status = parser.error().status;
    EXPECT_FALSE(parser.error().message.empty());
    return outcome;
  }
  outcome.method = parser.head().method;
  outcome.target = parser.head().target;
  outcome.host = std::string(parser.head().Header("host"));
  outcome.http_1_0 = parser.head().http_1_0;
  outcome.keep_alive = parser.head().keep_alive;
  outcome.expects_continue = parser.head().expects_continue;
  outcome.rest = pending;
  if (outcome.state == State::kDone) outcome.body = parser.TakeBody();
  return outcome;
}

// Parses it whole, byte by byte and split at every point. All results must be equal.
Outcome FeedInEveryWay(std::string_view bytes) {
  const Outcome whole = Feed({bytes});
  std::vector<std::string_view> single;
  for (size_t i = 0; i < bytes.size(); ++i) single.push_back(bytes.substr(i, 1));
  EXPECT_EQ(Feed(single), whole) << bytes;
  for (size_t i = 1; i < bytes.size(); ++i) {
    EXPECT_EQ(Feed({bytes.substr(0, i), bytes.substr(i)}), whole) << bytes << " split at " << i;
  }
  return whole;
}

std::string Get(std::string_view headers) {
  return absl::StrCat("GET /v1/models HTTP/1.1\r\nHost: a\r\n", ToAbsl(headers), "\r\n");
}

std::string Chunked(std::string_view chunks) {
  return absl::StrCat("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", ToAbsl(chunks));
}

struct Refused {
  const char* name;
  std::string bytes;
  int status;
};

TEST(HttpParser, RejectsHostileRequests) {
  const std::string post = "POST / HTTP/1.1\r\nHost: a\r\n";
  const Refused rows[] = {
      // Not HTTP.
      {"TLS", "\x16\x03\x01\x02\x00\x01"s, 400},
      {"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400},
      {"HTTP/0.9", "GET /\r\n\r\n", 400},
      {"version 1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", 400},
      {"a blank first", " GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"two blanks", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"no target", "GET  HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"LF alone", "GET / HTTP/1.1\nHost: a\n\n", 400},
      {"LF alone in a later line", "GET / HTTP/1.1\r\nHost: a\n\r\n", 400},
      {"LF alone at the end", "GET / HTTP/1.1\r\nHost: a\r\n\n", 400},
      {"CR alone", "GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", 400},
      {"CR before CRLF", "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", 400},
      {"CR alone before the request", "\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"LF before the request", "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"NUL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: b\0c\r\n\r\n"s, 400},
      {"NUL in the target", "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n"s, 400},
      {"a blank before the colon", Get("X : b\r\n"), 400},
      {"a name with a blank", Get("X Y: b\r\n"), 400},
      {"no colon", Get("XY\r\n"), 400},
      {"no name", Get(": b\r\n"), 400},
      // Sizes.
      {"a target too long", absl::StrCat("GET /", std::string(100, 'a'), " HTTP/1.1\r\nHost: a\r\n\r\n"), 414},
      {"an endless target", absl::StrCat("GET /", std::string(1000, 'a')), 414},
      {"an endless method", std::string(1000, 'A'), 414},
      {"an endless header", Get(absl::StrCat("X: ", std::string(1000, 'a'))), 431},
      {"an endless name", Get(std::string(1000, 'a')), 431},
      {"many header lines", Get(absl::StrCat("A: b\r\nA: b\r\nA: b\r\nA: b\r\nA: b\r\nA: b\r\nA: b\r\nA: b\r\n")), 431},
      {"endless empty lines",
       [] {
         std::string lines;
         for (int i = 0; i < 400; ++i) lines += "\r\n";
         return lines;
       }(),
       400},
      {"a length too large", post + "Content-Length: 65\r\n\r\n", 413},
      {"a huge length", post + "Content-Length: 18446744073709551615\r\n\r\n", 413},
      {"chunks too large", Chunked("20\r\n01234567890123456789012345678901\r\n21\r\n"), 413},
      {"a huge chunk", Chunked("ffffffffffffffff\r\n"), 413},
      {"a trailer too large", Chunked(absl::StrCat("0\r\nA:", std::string(1000, ' '))), 431},
      {"a trailer's name too large", Chunked(absl::StrCat("0\r\n", std::string(1000, 'a'))), 431},
      {"many trailers",
       Chunked(absl::StrCat("0\r\n",
                            [] {
                              std::string lines;
                              for (int i = 0; i < 200; ++i) lines += "A: b\r\n";
                              return lines;
                            }())),
       431},
      {"a chunk extension too large", Chunked(absl::StrCat("1;", std::string(1000, 'a'))), 431},
      {"blanks before a chunk extension", Chunked(absl::StrCat("1", std::string(1000, ' '))), 431},
      // Framing.
      {"both lengths", post + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
      {"both lengths, turned", post + "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n", 400},
      {"both, and unknown", post + "Transfer-Encoding: xchunked\r\nContent-Length: 1\r\n\r\na", 400},
      {"two lengths", post + "Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400},
      {"a list of lengths", post + "Content-Length: 1, 2\r\n\r\n", 400},
      {"a sign", post + "Content-Length: +1\r\n\r\n", 400},
      {"a negative length", post + "Content-Length: -1\r\n\r\n", 400},
      {"a length in hex", post + "Content-Length: 0x1\r\n\r\n", 400},
      {"a length that overflows", post + "Content-Length: 18446744073709551617\r\n\r\n", 400},
      {"no length", post + "Content-Length:\r\n\r\n", 400},
      {"x", post + "Transfer-Encoding: x\r\n\r\n", 400},
      {"identity", post + "Transfer-Encoding: identity\r\n\r\n", 400},
      {"gzip", post + "Transfer-Encoding: gzip\r\n\r\n", 400},
      {"quoted", post + "Transfer-Encoding: \"chunked\"\r\n\r\n", 400},
      {"chunked is not last", post + "Transfer-Encoding: chunked, identity\r\n\r\n", 400},
      {"chunked is not last, in two lines", post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n\r\n",
       400},
      {"xchunked", post + "Transfer-Encoding: xchunked\r\n\r\n", 400},
      {"empty coding", post + "Transfer-Encoding:\r\n\r\n", 400},
      {"twice chunked", post + "Transfer-Encoding: chunked, chunked\r\n\r\n", 400},
      {"twice chunked, in two lines", post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
      {"chunked with a parameter", post + "Transfer-Encoding: chunked;q=1\r\n\r\n", 400},
      {"an unknown coding before", post + "Transfer-Encoding: gzip, chunked\r\n\r\n", 501},
      {"an unknown coding in a line before", post + "Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n\r\n", 501},
      {"chunked in HTTP/1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
      {"a content coding", post + "Content-Encoding: gzip\r\nContent-Length: 1\r\n\r\na", 415},
      {"an unknown expectation", post + "Expect: 200-ok\r\nContent-Length: 1\r\n\r\na", 417},
      // Chunks.
      {"no size", Chunked("\r\n"), 400},
      {"no hex", Chunked("g\r\n"), 400},
      {"hex with a prefix", Chunked("0x1\r\na\r\n"), 400},
      {"a size with a sign", Chunked("+1\r\na\r\n"), 400},
      {"a size that is too long", Chunked("00000000000000001\r\na\r\n"), 400},
      {"LF behind a size", Chunked("1\na\r\n"), 400},
      {"a blank behind a size", Chunked("1 \r\na\r\n"), 400},
      {"LF in an extension", Chunked("1;a\na\r\n"), 400},
      {"CR in an extension", Chunked("1;a\rb\r\na\r\n"), 400},
      {"no CRLF behind data", Chunked("1\r\nab\r\n"), 400},
      {"LF behind data", Chunked("1\r\na\n0\r\n\r\n"), 400},
      {"a trailer that is none", Chunked("0\r\nGET / HTTP/1.1\r\n\r\n"), 400},
      {"a folded trailer", Chunked("0\r\nA: b\r\n c\r\n\r\n"), 400},
      {"a NUL in a trailer", Chunked("0\r\nA: \0\r\n\r\n"s), 400},
      // Host and target.
      {"no Host", "GET / HTTP/1.1\r\n\r\n", 400},
      {"an empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", 400},
      {"two Hosts", Get("Host: a\r\n"), 400},
      {"two Hosts in HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400},
      {"a Host with a path and a user", "GET / HTTP/1.1\r\nHost: a/b@c\r\n\r\n", 400},
      {"a Host with a bad port", "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", 400},
      {"a malformed Host beside a URL", "GET http://a/ HTTP/1.1\r\nHost: a b\r\n\r\n", 400},
      {"no Host beside a URL", "GET http://a/ HTTP/1.1\r\n\r\n", 400},
      {"a URL with a user", "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"a URL without a host", "GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"another scheme", "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"no path", "GET v1/models HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"an asterisk", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"CONNECT", "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 501},
  };
  for (const Refused& row : rows) {
    const Outcome outcome = FeedInEveryWay(row.bytes);
    EXPECT_EQ(outcome.state, State::kFailed) << row.name;
    EXPECT_EQ(outcome.status, row.status) << row.name;
  }
}

struct Taken {
  const char* name;
  std::string bytes;
  Outcome want;
};

TEST(HttpParser, AcceptsUnusualButLegalRequests) {
  const Outcome get{.state = State::kDone, .method = "GET", .target = "/", .host = "a", .body = "", .rest = ""};
  const auto with = [](Outcome outcome, auto change) {
    change(&outcome);
    return outcome;
  };
  const auto post = [](std::string body, std::string rest = "") {
    return Outcome{
        .state = State::kDone, .method = "POST", .target = "/", .host = "a", .body = body, .rest = std::move(rest)};
  };
  const std::string line = "GET / HTTP/1.1\r\n";
  const Taken rows[] = {
      {"the plainest", line + "Host: a\r\n\r\n", get},
      {"CRLF before it", "\r\n\r\n" + line + "Host: a\r\n\r\n", get},
      {"no blank behind the colon", line + "host:a\r\n\r\n", get},
      {"blanks and tabs around a value", line + "HOST: \t a \t \r\n\r\n", get},
      {"a folded value", line + "Host: a\r\nX: b\r\n c\r\n\r\n", get},
      {"an empty value", line + "Host: a\r\nX:\r\n\r\n", get},
      {"a port", line + "Host: a:8080\r\n\r\n", with(get, [](Outcome* o) { o->host = "a:8080"; })},
      {"IPv6", line + "Host: [::1]:8080\r\n\r\n", with(get, [](Outcome* o) { o->host = "[::1]:8080"; })},
      {"a method of its own", "BREW / HTTP/1.1\r\nHost: a\r\n\r\n", with(get, [](Outcome* o) { o->method = "BREW"; })},
      {"the next request", line + "Host: a\r\n\r\n" + line, with(get, [&](Outcome* o) { o->rest = line; })},
      {"close", line + "Host: a\r\nConnection: close\r\n\r\n", with(get, [](Outcome* o) { o->keep_alive = false; })},
      {"close in a list", line + "Host: a\r\nConnection: x, Close\r\n\r\n",
       with(get, [](Outcome* o) { o->keep_alive = false; })},
      {"the URL's host wins", "GET http://b:1/x?y HTTP/1.1\r\nHost: a\r\n\r\n",
       with(get,
            [](Outcome* o) {
              o->host = "b:1";
              o->target = "/x?y";
            })},
      {"a URL without a path", "GET HTTPS://a HTTP/1.1\r\nHost: a\r\n\r\n", get},
      {"a URL with a query only", "GET http://a?x HTTP/1.1\r\nHost: a\r\n\r\n",
       with(get, [](Outcome* o) { o->target = "/?x"; })},
      {"OPTIONS of the server", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
       with(get,
            [](Outcome* o) {
              o->method = "OPTIONS";
              o->target = "*";
            })},
      {"OPTIONS of the server by URL", "OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n",
       with(get,
            [](Outcome* o) {
              o->method = "OPTIONS";
              o->target = "*";
            })},
      {"HTTP/1.0", "GET / HTTP/1.0\r\n\r\n",
       with(get,
            [](Outcome* o) {
              o->host = "";
              o->http_1_0 = true;
              o->keep_alive = false;
            })},
      {"HTTP/1.0 kept alive", "GET / HTTP/1.0\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n",
       with(get, [](Outcome* o) { o->http_1_0 = true; })},
      {"HTTP/1.0 with an expectation",
       "POST / HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx",
       with(post("x"),
            [](Outcome* o) {
              o->http_1_0 = true;
              o->keep_alive = false;
            })},
      {"an expectation", "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\nx",
       with(post("x"), [](Outcome* o) { o->expects_continue = true; })},
      {"an expectation without a body", "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n", post("")},
      {"a body and what follows", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab\r\nGET",
       post("ab", "\r\nGET")},
      {"the length twice, but equal", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
       post("x")},
      {"an empty body", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\nx", post("", "x")},
      {"identity", "POST / HTTP/1.1\r\nHost: a\r\nContent-Encoding: identity\r\nContent-Length: 1\r\n\r\nx", post("x")},
      {"a body as large as may be",
       absl::StrCat("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 64\r\n\r\n", std::string(64, 'x'), "y"),
       post(std::string(64, 'x'), "y")},
      {"chunks", Chunked("1\r\na\r\n2\r\nbc\r\n0\r\n\r\nGET"), post("abc", "GET")},
      {"chunks of any case",
       "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n",
       post("0123456789")},
      {"zeros before a size", Chunked("0001\r\na\r\n000\r\n\r\n"), post("a")},
      {"extensions", Chunked("1;a=b;c=\"d;\t\xc3\xbc\"\r\na\r\n0 ;x\r\n\r\n"), post("a")},
      {"trailers", Chunked("1\r\na\r\n0\r\nX: b\r\nY:\r\n\r\nz"), post("a", "z")},
      {"chunks as large as may be", Chunked(absl::StrCat("40\r\n", std::string(64, 'x'), "\r\n0\r\n\r\n")),
       post(std::string(64, 'x'))},
  };
  for (const Taken& row : rows) EXPECT_EQ(FeedInEveryWay(row.bytes), row.want) << row.name;
}

TEST(HttpParser, AcceptsAHeaderUpToTheLimit) {
  const std::string begin = "GET / HTTP/1.1\r\nHost: a\r\nX: ";
  const size_t room = kLimits.max_header_bytes - begin.size() - 4;
  EXPECT_EQ(Feed({absl::StrCat(begin, std::string(room, 'x'), "\r\n\r\n")}).state, State::kDone);
  EXPECT_EQ(Feed({absl::StrCat(begin, std::string(room + 1, 'x'), "\r\n\r\n")}).status, 431);
}

TEST(HttpParser, ManySmallChunksAreNotOverhead) {
  std::string chunks;
  for (int i = 0; i < 64; ++i) chunks += "000000000001\r\nx\r\n";
  EXPECT_EQ(Feed({Chunked(chunks + "0\r\n\r\n")}).body, std::string(64, 'x'));
}

TEST(HttpParser, StopsAfterTheHead) {
  HttpParser parser(kLimits);
  const std::string head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n";
  EXPECT_EQ(parser.Feed(head + "ab"), head.size());
  EXPECT_EQ(parser.state(), State::kBody);
  EXPECT_EQ(parser.Feed("ab"), 2u);
  EXPECT_EQ(parser.state(), State::kDone);
}

TEST(HttpParser, EmptyLinesDoNotStartARequest) {
  HttpParser parser(kLimits);
  EXPECT_EQ(parser.Feed("\r\n\r"), 3u);
  EXPECT_FALSE(parser.started());
  EXPECT_EQ(parser.buffered(), 0u);
  EXPECT_EQ(parser.Feed("\nG"), 2u);
  EXPECT_TRUE(parser.started());
}

TEST(HttpParser, JoinsTheLinesOfAList) {
  HttpParser parser(kLimits);
  parser.Feed(Get("Accept: text/html\r\nX: y\r\naccept: text/event-stream\r\n"));
  EXPECT_EQ(parser.head().HeaderList("accept"), "text/html, text/event-stream");
  EXPECT_EQ(parser.head().Header("accept"), "text/html");
  EXPECT_EQ(parser.head().Count("accept"), 2u);
}

TEST(HttpParser, FieldsThatBeastCannotHoldAreRejected) {
  HttpParser parser({.max_header_bytes = 1 << 20, .max_target_bytes = 100, .max_headers = 8, .max_body_bytes = 64});
  parser.Feed(Get(absl::StrCat("X: ", std::string(70'000, 'x'), "\r\n")));
  EXPECT_EQ(parser.state(), State::kFailed);
  EXPECT_EQ(parser.error().status, 431);
}

TEST(HttpParser, MemoryFollowsTheReceivedBytes) {
  HttpParser parser({.max_header_bytes = 512, .max_target_bytes = 100, .max_headers = 8, .max_body_bytes = 1 << 20});
  parser.Feed("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1048576\r\n\r\n");
  parser.Feed("x");
  EXPECT_LE(parser.buffered(), 8u << 10);
  const std::string kilobytes(1024, 'x');
  for (int i = 0; i < 1023; ++i) parser.Feed(kilobytes);
  EXPECT_LE(parser.buffered(), (1u << 20) + 512);
}

}  // namespace
}  // namespace runnel::base
