#include "tests/testing/http_stream_client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "services/base/status_macros.h"
#include "services/base/strings.h"

namespace runnel::testing {
namespace {

constexpr int kPatienceMs = 10'000;

bool WaitFor(int fd, short events) {
  pollfd poll_fd{fd, events, 0};
  return poll(&poll_fd, 1, kPatienceMs) > 0;
}

}  // namespace

absl::StatusOr<std::unique_ptr<HttpStreamClient>> HttpStreamClient::Connect(int port, int receive_buffer_bytes) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (receive_buffer_bytes > 0) {
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer_bytes, sizeof receive_buffer_bytes);
  }
  std::unique_ptr<HttpStreamClient> client(new HttpStreamClient(fd));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return absl::UnavailableError(std::strerror(errno));
  }
  return client;
}

HttpStreamClient::~HttpStreamClient() {
  if (fd_ >= 0) close(fd_);
}

absl::Status HttpStreamClient::Send(std::string_view bytes) {
  while (!bytes.empty()) {
    if (!WaitFor(fd_, POLLOUT)) return absl::DeadlineExceededError("send");
    const ssize_t n = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno != EAGAIN) return absl::UnavailableError(std::strerror(errno));
    if (n > 0) bytes.remove_prefix(static_cast<size_t>(n));
  }
  return absl::OkStatus();
}

absl::Status HttpStreamClient::Request(std::string_view method, std::string_view target, std::string_view headers,
                                       std::string_view body) {
  std::string bytes = absl::StrCat(base::ToAbsl(method), " ", base::ToAbsl(target), " HTTP/1.1\r\nHost: 127.0.0.1\r\n",
                                   base::ToAbsl(headers));
  if (!body.empty()) {
    absl::StrAppend(&bytes, "Content-Type: application/json\r\nContent-Length: ", body.size(), "\r\n");
  } else if (method == "POST") {
    bytes += "Content-Length: 0\r\n";
  }
  return Send(absl::StrCat(bytes, "\r\n", base::ToAbsl(body)));
}

absl::Status HttpStreamClient::Fill() {
  if (!WaitFor(fd_, POLLIN)) return absl::DeadlineExceededError("receive");
  std::array<char, 16384> bytes;
  const ssize_t n = recv(fd_, bytes.data(), bytes.size(), 0);
  if (n <= 0) return absl::UnavailableError(n == 0 ? "end of the connection" : std::strerror(errno));
  buffer_.append(bytes.data(), static_cast<size_t>(n));
  return absl::OkStatus();
}

absl::StatusOr<std::string> HttpStreamClient::ReadLine() {
  size_t end;
  while ((end = buffer_.find("\r\n")) == std::string::npos) RETURN_IF_ERROR(Fill());
  std::string line = buffer_.substr(0, end);
  buffer_.erase(0, end + 2);
  return line;
}

absl::StatusOr<std::string> HttpStreamClient::ReadBytes(size_t count) {
  while (buffer_.size() < count) RETURN_IF_ERROR(Fill());
  std::string bytes = buffer_.substr(0, count);
  buffer_.erase(0, count);
  return bytes;
}

absl::StatusOr<HttpStreamClient::Head> HttpStreamClient::ReadHead() {
  Head head;
  ASSIGN_OR_RETURN(std::string line, ReadLine());
  head.bytes = line + "\r\n";
  if (line.size() < 12 || !absl::SimpleAtoi(line.substr(9, 3), &head.status)) {
    return absl::InternalError(absl::StrCat("no status line: ", line));
  }
  for (;;) {
    ASSIGN_OR_RETURN(line, ReadLine());
    absl::StrAppend(&head.bytes, line, "\r\n");
    if (line.empty()) return head;
    const size_t colon = line.find(':');
    std::string name = line.substr(0, colon);
    absl::AsciiStrToLower(&name);
    std::string value = line.substr(colon + 1);
    absl::StripAsciiWhitespace(&value);
    head.headers[name] = value;
  }
}

absl::StatusOr<std::string> HttpStreamClient::ReadChunk() {
  ASSIGN_OR_RETURN(const std::string line, ReadLine());
  size_t size = 0;
  if (!absl::SimpleHexAtoi(line, &size)) return absl::InternalError(absl::StrCat("no size of a chunk: ", line));
  ASSIGN_OR_RETURN(std::string content, ReadBytes(size));
  ASSIGN_OR_RETURN(const std::string end, ReadBytes(2));
  if (end != "\r\n") return absl::InternalError("a chunk does not end where it should");
  return content;
}

absl::StatusOr<std::string> HttpStreamClient::ReadUntil(std::string_view needle) {
  std::string text;
  while (text.find(needle) == std::string::npos) {
    ASSIGN_OR_RETURN(const std::string chunk, ReadChunk());
    if (chunk.empty()) return absl::OutOfRangeError(absl::StrCat("the body ended: ", text));
    text += chunk;
  }
  return text;
}

absl::StatusOr<HttpStreamClient::Response> HttpStreamClient::ReadResponse() { return ReadResponseTo("GET"); }

absl::StatusOr<HttpStreamClient::Response> HttpStreamClient::ReadResponseTo(std::string_view method) {
  Response response;
  ASSIGN_OR_RETURN(response.head, ReadHead());
  if (method == "HEAD" || response.head.status == 204 || response.head.status == 304) {
    response.complete = true;
  } else if (response.head.headers.count("transfer-encoding") > 0) {
    for (;;) {
      const absl::StatusOr<std::string> chunk = ReadChunk();
      if (absl::IsUnavailable(chunk.status())) return response;
      RETURN_IF_ERROR(chunk.status());
      response.complete = chunk->empty();
      if (response.complete) return response;
      response.body += *chunk;
    }
  } else if (response.head.headers.count("content-length") > 0) {
    size_t length = 0;
    if (!absl::SimpleAtoi(response.head.headers["content-length"], &length)) return absl::InternalError("bad length");
    ASSIGN_OR_RETURN(response.body, ReadBytes(length));
    response.complete = true;
  } else {
    absl::Status status;
    while ((status = Fill()).ok()) {
    }
    if (!absl::IsUnavailable(status)) return status;
    response.body.swap(buffer_);
  }
  return response;
}

bool HttpStreamClient::ReadUntilClosed() {
  absl::Status status;
  while ((status = Fill()).ok()) {
  }
  return absl::IsUnavailable(status);
}

void HttpStreamClient::ShutdownSend() { shutdown(fd_, SHUT_WR); }

void HttpStreamClient::Reset() {
  const linger now{1, 0};
  setsockopt(fd_, SOL_SOCKET, SO_LINGER, &now, sizeof now);
  close(fd_);
  fd_ = -1;
}

}  // namespace runnel::testing
