#include "services/inference/journal/redis/redis_client.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <exception>
#include <optional>
#include <thread>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "services/base/random.h"
#include "services/base/status_macros.h"
#include "services/inference/journal/redis/redis_connector.h"
#include "services/inference/journal/redis/redis_session.h"

namespace runnel::inference {
namespace {

using Reason = RedisFailure::Reason;

absl::Status CheckOptions(const RedisOptions& options) {
  if (options.url.servers.empty()) return absl::InvalidArgumentError("--log: no server");
  if (options.user.find('\0') != std::string::npos) return absl::InvalidArgumentError("--log_user has a NUL byte");
  if (options.cert_file.empty() != options.cert_key_file.empty()) {
    return absl::InvalidArgumentError("--log_cert_file and --log_cert_key_file: set both or neither");
  }
  if (!options.url.tls && !(options.ca_file.empty() && options.cert_file.empty())) {
    return absl::InvalidArgumentError(
        "--log_ca_file and --log_cert_file need TLS: use rediss:// or rediss+sentinel:// in --log");
  }
  RETURN_IF_ERROR(ReadPassword(options.password_file).status());
  return options.url.tls ? MakeTlsContext(options).status() : absl::OkStatus();
}

}  // namespace

// Everything but the constructor, Start, Stop and Post runs on the client's thread.
class RedisClient::Impl {
 public:
  Impl(RedisOptions options, Handler* handler)
      : options_(std::move(options)),
        handler_(handler),
        io_(1),
        work_(io_.get_executor()),
        connector_(&io_, &options_),
        pause_(io_) {}
  ~Impl() { Stop(); }

  void Start() {
    net::co_spawn(io_, Run(), [](std::exception_ptr error) {
      if (error) std::rethrow_exception(error);
    });
    thread_ = std::jthread([this] { io_.run(); });
  }

  void Stop() {
    if (!thread_.joinable()) return;
    net::post(io_, [this] {
      stopped_ = true;
      pause_.cancel();
      connector_.Stop();
      if (session_ != nullptr) session_->Lose(Stopped());
    });
    thread_.join();
  }

  net::io_context& io() { return io_; }

  void Send(std::span<const std::string_view> args, ReplyCallback done) {
    if (session_ != nullptr && session_->Send(args, &done)) return;
    absl::Status status = session_ == nullptr ? absl::UnavailableError("there is no connection to the store")
                                              : absl::ResourceExhaustedError("too many commands are pending");
    net::post(io_, [status = std::move(status), done = std::move(done)]() mutable { done(std::move(status)); });
  }

  const RedisSession* session() const { return session_.get(); }

 private:
  static RedisFailure Stopped() {
    return {Reason::kStopped, absl::CancelledError("the client of the store was stopped")};
  }

  Awaitable<void> Run() {
    absl::Duration backoff = options_.min_backoff;
    while (!stopped_) {
      auto result = co_await connector_.Connect();
      if (stopped_) break;
      const SteadyClock::time_point since = SteadyClock::now();
      RedisFailure failure;
      if (auto* connected = std::get_if<RedisConnected>(&result)) {
        failure = co_await Serve(std::move(*connected));
      } else {
        failure = std::get<RedisFailure>(std::move(result));
      }
      if (stopped_) break;
      ReportDown(failure);
      // A connection that is always lost at once is no success.
      if (absl::FromChrono(SteadyClock::now() - since) > options_.max_backoff) backoff = options_.min_backoff;
      co_await Pause(base::Jitter(backoff, 0.5, 1));
      backoff = std::min(backoff * 2, options_.max_backoff);
    }
    // After the callbacks that are already on their way.
    net::post(io_, [this] { io_.stop(); });
  }

  Awaitable<RedisFailure> Serve(RedisConnected connected) {
    const auto session = std::make_shared<RedisSession>(&io_, &options_, std::move(connected));
    session_ = session;
    const RedisServerInfo& info = session->info();
    spdlog::info("shared log: connected to {} {} at {}", info.valkey ? "Valkey" : "Redis", info.version, info.address);
    reported_.reset();
    handler_->OnUp(info);
    RedisFailure failure = co_await session->Serve();
    session_ = nullptr;
    session->Drop(stopped_ ? Stopped().status : failure.status);
    co_return failure;
  }

  void ReportDown(const RedisFailure& failure) {
    if (reported_ != failure.reason) {
      reported_ = failure.reason;
      spdlog::warn("shared log: {}; retrying", std::string(failure.status.message()));
    }
    handler_->OnDown(failure);
  }

  Awaitable<void> Pause(absl::Duration duration) {
    if (stopped_) co_return;
    pause_.expires_after(absl::ToChronoNanoseconds(duration));
    co_await pause_.async_wait(kAwait);
  }

  const RedisOptions options_;
  Handler* const handler_;
  net::io_context io_;
  net::executor_work_guard<Executor> work_;
  RedisConnector connector_;
  Timer pause_;
  std::shared_ptr<RedisSession> session_;  // while the connection is up
  std::optional<Reason> reported_;         // in the log, since the last connection
  bool stopped_ = false;
  std::jthread thread_;
};

absl::StatusOr<std::unique_ptr<RedisClient>> RedisClient::Create(RedisOptions options, Handler* handler) {
  RETURN_IF_ERROR(CheckOptions(options));
  return std::unique_ptr<RedisClient>(new RedisClient(std::make_unique<Impl>(std::move(options), handler)));
}

RedisClient::RedisClient(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

RedisClient::~RedisClient() = default;

void RedisClient::Start() { impl_->Start(); }
void RedisClient::Stop() { impl_->Stop(); }

void RedisClient::Post(absl::AnyInvocable<void()> function) {
  net::post(impl_->io(), [function = std::move(function)]() mutable { function(); });
}

boost::asio::io_context& RedisClient::io() { return impl_->io(); }

void RedisClient::Send(std::span<const std::string_view> args, ReplyCallback done) {
  impl_->Send(args, std::move(done));
}

bool RedisClient::up() const { return impl_->session() != nullptr; }
size_t RedisClient::pending_commands() const { return up() ? impl_->session()->pending_commands() : 0; }
size_t RedisClient::pending_bytes() const { return up() ? impl_->session()->pending_bytes() : 0; }

}  // namespace runnel::inference
