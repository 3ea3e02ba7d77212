#include "services/inference/journal/redis/redis_connector.h"

#include <hiredis/hiredis.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "services/base/status_macros.h"
#include "services/base/strings.h"
#include "services/inference/journal/redis/server_info.h"

namespace runnel::inference {
namespace {

using Reason = RedisFailure::Reason;

// A Sentinel that does not reply must not delay asking the next one.
constexpr absl::Duration kSentinelTimeout = absl::Milliseconds(500);
// Before it is known to be Redis, a server may not make the client hold much: INFO is about 6 KB.
constexpr RedisReplyReader::Limits kLimitsBefore = {.max_bytes = 1 << 20, .max_elements = 64};
constexpr size_t kReadBytes = 16 << 10;
constexpr size_t kMaxPasswordBytes = 4096;

std::string ToText(const base::HostPort& server) {
  const bool v6 = server.host.find(':') != std::string::npos;
  return absl::StrCat(v6 ? "[" : "", server.host, v6 ? "]:" : ":", server.port);
}

}  // namespace

void AppendCommand(std::span<const std::string_view> args, std::string* bytes) {
  constexpr size_t kFew = 16;
  std::array<const char*, kFew> few_texts;
  std::array<size_t, kFew> few_sizes;
  std::vector<const char*> many_texts;
  std::vector<size_t> many_sizes;
  const char** texts = few_texts.data();
  size_t* sizes = few_sizes.data();
  if (args.size() > kFew) {
    many_texts.resize(args.size());
    many_sizes.resize(args.size());
    texts = many_texts.data();
    sizes = many_sizes.data();
  }
  for (size_t i = 0; i < args.size(); ++i) {
    texts[i] = args[i].data();
    sizes[i] = args[i].size();
  }
  sds command = nullptr;
  const int size = redisFormatSdsCommandArgv(&command, static_cast<int>(args.size()), texts, sizes);
  if (size < 0) throw std::bad_alloc();
  bytes->append(command, static_cast<size_t>(size));
  redisFreeSdsCommand(command);
}

absl::StatusOr<std::string> ReadPassword(const std::string& file) {
  if (file.empty()) return "";
  std::ifstream in(file, std::ios::binary);
  std::string password(kMaxPasswordBytes + 1, '\0');
  in.read(password.data(), static_cast<std::streamsize>(password.size()));
  // The end of the file sets failbit, a folder sets badbit.
  if (!in.is_open() || in.bad()) {
    return absl::InvalidArgumentError(absl::StrCat("--log_password_file: '", file, "' cannot be read"));
  }
  password.resize(static_cast<size_t>(in.gcount()));
  while (password.ends_with('\n') || password.ends_with('\r')) password.pop_back();
  if (password.empty() || password.size() > kMaxPasswordBytes) {
    return absl::InvalidArgumentError(absl::StrCat("--log_password_file: '", file, "' is ",
                                                   password.empty() ? "empty" : "longer than a password can be"));
  }
  return password;
}

RedisConnector::RedisConnector(net::io_context* io, const RedisOptions* options)
    : io_(io), options_(options), resolver_(io), deadline_(*io) {}

void RedisConnector::Stop() {
  stopped_ = true;
  deadline_.cancel();
  resolver_.Cancel();
  if (socket_ != nullptr) socket_->Close();
}

void RedisConnector::BeginDeadline(absl::Duration timeout) {
  timed_out_ = false;
  deadline_.expires_after(absl::ToChronoNanoseconds(timeout));
  deadline_.async_wait([this](const ErrorCode& error) {
    if (error || deadline_.expiry() > SteadyClock::now()) return;
    timed_out_ = true;
    resolver_.Cancel();
    if (socket_ != nullptr) socket_->Close();
  });
}

RedisFailure RedisConnector::Failure(Reason reason, std::string_view text) const {
  if (stopped_) return {Reason::kStopped, absl::CancelledError("the client of Redis was stopped")};
  if (timed_out_)
    return {Reason::kTimeout, absl::UnavailableError(absl::StrCat(server_, ": it does not reply in time"))};
  return {reason, absl::UnavailableError(absl::StrCat(server_, ": ", base::ToAbsl(text)))};
}

RedisFailure RedisConnector::FailureOf(const ErrorCode& error) const {
  if (socket_ != nullptr && !socket_->tls_error().empty() && error.category() == net::error::get_ssl_category()) {
    return Failure(Reason::kTls, socket_->tls_error());
  }
  const Reason reason = ReasonOf(error);
  if (reason == Reason::kClosed) return Failure(reason, "it closed the connection");
  return Failure(reason, error.message());
}

absl::StatusOr<RedisConnector::Secrets> RedisConnector::ReadSecrets() const {
  Secrets secrets;
  ASSIGN_OR_RETURN(secrets.password, ReadPassword(options_->password_file));
  if (options_->url.tls) {
    ASSIGN_OR_RETURN(secrets.tls, MakeTlsContext(*options_));
  }
  return secrets;
}

void RedisConnector::AppendAuth(const Secrets& secrets, std::string* commands) const {
  if (options_->user.empty()) {
    AppendCommand(std::array<std::string_view, 2>{"AUTH", secrets.password}, commands);
  } else {
    AppendCommand(std::array<std::string_view, 3>{"AUTH", options_->user, secrets.password}, commands);
  }
}

Awaitable<RedisConnector::Result> RedisConnector::Connect() {
  server_ = options_->url.ToString();
  const absl::StatusOr<Secrets> secrets = ReadSecrets();
  if (!secrets.ok()) {
    RedisFailure failure = Failure(Reason::kOptions, std::string(secrets.status().message()));
    co_return failure;
  }
  RedisConnected connected;
  base::HostPort master = options_->url.servers.front();
  std::optional<RedisFailure> failure;
  if (!options_->url.master_name.empty()) failure = co_await AskSentinels(*secrets, &master);
  if (!failure.has_value()) failure = co_await AskMaster(master, *secrets, &connected);
  deadline_.cancel();
  socket_.reset();
  reader_.reset();
  if (failure.has_value()) co_return *std::move(failure);
  co_return std::move(connected);
}

Awaitable<std::optional<RedisFailure>> RedisConnector::AskSentinels(const Secrets& secrets, base::HostPort* master) {
  std::optional<RedisFailure> failure;
  const size_t count = options_->url.servers.size();
  for (size_t i = 0; i < count && !stopped_; ++i) {
    const size_t index = (first_sentinel_ + i) % count;
    failure = co_await AskSentinel(options_->url.servers[index], secrets, master);
    if (failure.has_value()) continue;
    first_sentinel_ = index;
    co_return std::nullopt;
  }
  // Each of them may have a reason of its own; the last one is in the text.
  if (!stopped_ && failure.has_value()) failure->reason = Reason::kSentinel;
  co_return failure;
}

Awaitable<std::optional<RedisFailure>> RedisConnector::AskSentinel(const base::HostPort& sentinel,
                                                                   const Secrets& secrets, base::HostPort* master) {
  BeginDeadline(std::min(options_->connect_timeout, kSentinelTimeout));
  server_ = absl::StrCat("Sentinel at ", ToText(sentinel));
  std::optional<RedisFailure> failure = co_await Open(sentinel, secrets);
  if (failure.has_value()) co_return failure;

  std::string question;
  AppendCommand(std::array<std::string_view, 3>{"SENTINEL", "get-master-addr-by-name", options_->url.master_name},
                &question);
  bool needs_password = false;
  auto on_address = [&](RedisReply reply) -> std::optional<RedisFailure> {
    needs_password = reply.error_code() == "NOAUTH" && !secrets.password.empty();
    if (needs_password) return std::nullopt;
    if (reply.is_error()) {
      const std::optional<ServerProblem> problem = ProblemOf(reply);
      return Failure(Reason::kSentinel, problem.has_value() ? problem->text : "it is not a Sentinel");
    }
    if (reply.is_nil()) return Failure(Reason::kSentinel, "it does not know a master of this name");
    int port = 0;
    if (reply.size() != 2 || !absl::SimpleAtoi(base::ToAbsl(reply[1].text()), &port) || port < 1 || port > 65535 ||
        reply[0].text().empty() || reply[0].text().size() > 255) {
      return Failure(Reason::kSentinel, "its reply is not the address of a master");
    }
    master->host = std::string(reply[0].text());
    master->port = port;
    return std::nullopt;
  };
  failure = co_await Exchange(question, 1, on_address);
  if (failure.has_value() || !needs_password) co_return failure;

  // It has the password of the servers, or none.
  std::string commands;
  AppendAuth(secrets, &commands);
  commands += question;
  bool authenticated = false;
  auto on_reply = [&](RedisReply reply) -> std::optional<RedisFailure> {
    if (std::exchange(authenticated, true)) {
      const std::optional<RedisFailure> problem = on_address(reply);
      return needs_password ? Failure(Reason::kSentinel, "it rejects the password") : problem;
    }
    const std::optional<ServerProblem> problem = CheckAuth(reply);
    if (problem.has_value()) return Failure(Reason::kSentinel, problem->text);
    return std::nullopt;
  };
  failure = co_await Exchange(commands, 2, on_reply);
  co_return failure;
}

Awaitable<std::optional<RedisFailure>> RedisConnector::AskMaster(const base::HostPort& server, const Secrets& secrets,
                                                                 RedisConnected* connected) {
  BeginDeadline(options_->connect_timeout);
  server_ = absl::StrCat("Redis at ", ToText(server));
  std::optional<RedisFailure> failure = co_await Open(server, secrets);
  if (failure.has_value()) co_return failure;

  enum class Question { kAuth, kSelect, kInfo };
  std::vector<Question> questions;
  std::string commands;
  // An ACL user may have no password.
  if (!secrets.password.empty() || !options_->user.empty()) {
    AppendAuth(secrets, &commands);
    questions.push_back(Question::kAuth);
  }
  if (options_->url.db != 0) {
    AppendCommand(std::array<std::string_view, 2>{"SELECT", absl::StrCat(options_->url.db)}, &commands);
    questions.push_back(Question::kSelect);
  }
  AppendCommand(std::array<std::string_view, 1>{"INFO"}, &commands);
  questions.push_back(Question::kInfo);
  size_t next = 0;
  auto on_reply = [&](RedisReply reply) -> std::optional<RedisFailure> {
    std::optional<ServerProblem> problem;
    switch (questions[next++]) {
      case Question::kAuth:
        problem = CheckAuth(reply);
        break;
      case Question::kSelect:
        problem = CheckSelect(reply, options_->url.db);
        break;
      case Question::kInfo:
        problem = ReadServerInfo(reply, &connected->info);
        break;
    }
    if (problem.has_value()) return Failure(problem->reason, problem->text);
    return std::nullopt;
  };
  failure = co_await Exchange(commands, questions.size(), on_reply);
  if (failure.has_value()) co_return failure;

  connected->info.address = ToText(server);
  connected->info.local_address = socket_->LocalAddress();
  reader_->set_limits({.max_bytes = options_->max_reply_bytes, .max_elements = options_->max_reply_elements});
  connected->socket = std::move(socket_);
  connected->reader = std::move(reader_);
  co_return std::nullopt;
}

Awaitable<std::optional<RedisFailure>> RedisConnector::Open(const base::HostPort& server, const Secrets& secrets) {
  socket_ = std::make_unique<RedisSocket>(io_);
  reader_ = std::make_unique<RedisReplyReader>(kLimitsBefore);
  const std::vector<Endpoint> endpoints = co_await resolver_.Resolve(server.host, server.port);
  if (endpoints.empty()) co_return Failure(Reason::kName, "its name has no address");
  ErrorCode error = net::error::operation_aborted;
  for (const Endpoint& endpoint : endpoints) {
    if (stopped_ || timed_out_) break;
    error = co_await socket_->Connect(endpoint, options_->reply_timeout);
    if (!error) break;
  }
  if (error || stopped_ || timed_out_) co_return FailureOf(error);
  if (secrets.tls != nullptr) {
    error = co_await socket_->Handshake(secrets.tls, server.host);
    if (error) co_return socket_->tls_error().empty() ? FailureOf(error) : Failure(Reason::kTls, socket_->tls_error());
  }
  co_return std::nullopt;
}

Awaitable<std::optional<RedisFailure>> RedisConnector::Exchange(std::string commands, size_t count, OnReply on_reply) {
  // A server that has too many clients says so and closes, so a failed write is not the end.
  co_await socket_->WriteAll(commands);
  std::vector<char> buffer(kReadBytes);
  while (true) {
    switch (reader_->Read()) {
      case RedisReplyReader::Next::kReply: {
        std::optional<RedisFailure> failure = on_reply(reader_->reply());
        if (failure.has_value()) co_return failure;
        if (--count == 0) co_return std::nullopt;
        continue;
      }
      case RedisReplyReader::Next::kError:
        co_return Failure(Reason::kNotRedis, reader_->error());
      case RedisReplyReader::Next::kMore:
        break;
    }
    const auto [error, size] = co_await socket_->Read(buffer);
    if (error || stopped_ || timed_out_) co_return FailureOf(error);
    reader_->Feed(std::string_view(buffer.data(), size));
  }
}

}  // namespace runnel::inference
