#include "services/inference/engines/upstream/upstream_connection.h"

#include <httplib.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/strings.h"

namespace runnel::inference {
namespace {

using SteadyClock = std::chrono::steady_clock;

std::unique_ptr<httplib::ClientImpl> NewClient(const UpstreamConnectionOptions& options) {
  std::unique_ptr<httplib::ClientImpl> client;
  if (options.url.tls) {
    client = std::make_unique<httplib::SSLClient>(options.url.host, options.url.port);
    client->enable_server_certificate_verification(true);
    if (!options.ca_file.empty()) client->set_ca_cert_path(options.ca_file);
  } else {
    client = std::make_unique<httplib::ClientImpl>(options.url.host, options.url.port);
  }
  client->set_keep_alive(true);
  client->set_tcp_nodelay(true);
  client->set_follow_location(false);
  client->set_url_encode(false);
  client->set_connection_timeout(absl::ToChronoMicroseconds(options.connect_timeout));
  client->set_write_timeout(absl::ToChronoMicroseconds(options.write_timeout));
  client->set_read_timeout(absl::ToChronoMicroseconds(options.silence_timeout));
  return client;
}

httplib::Headers CommonHeaders(const UpstreamConnectionOptions& options) {
  httplib::Headers headers = {
      {"Host", options.url.authority},
      {"User-Agent", "runnel-inference"},
      // Compressed events would be delayed until a block is full.
      {"Accept-Encoding", "identity"},
  };
  if (!options.api_key.empty()) headers.emplace("Authorization", absl::StrCat("Bearer ", options.api_key));
  return headers;
}

UpstreamResult::End EndOf(httplib::Error error, bool silent) {
  switch (error) {
    case httplib::Error::Success:
      return UpstreamResult::End::kWhole;
    case httplib::Error::Connection:
    case httplib::Error::ConnectionTimeout:
    case httplib::Error::BindIPAddress:
      return UpstreamResult::End::kNoConnect;
    case httplib::Error::SSLConnection:
    case httplib::Error::SSLLoadingCerts:
    case httplib::Error::SSLServerVerification:
      return UpstreamResult::End::kUntrusted;
    case httplib::Error::Canceled:
      return UpstreamResult::End::kUnwanted;
    default:
      return silent ? UpstreamResult::End::kSilent : UpstreamResult::End::kCut;
  }
}

}  // namespace

struct UpstreamConnection::Impl {
  std::unique_ptr<httplib::ClientImpl> client;
  httplib::Request request;
};

UpstreamConnection::UpstreamConnection(const UpstreamConnectionOptions& options)
    : options_(options), impl_(std::make_unique<Impl>()) {
  impl_->client = NewClient(options_);
}

UpstreamConnection::~UpstreamConnection() = default;

void UpstreamConnection::Stop() { impl_->client->stop(); }

UpstreamResult UpstreamConnection::Post(std::string_view path, std::string_view body, const Handlers& handlers) {
  httplib::Request& request = impl_->request = {};
  request.method = "POST";
  request.path = absl::StrCat(options_.url.base_path, base::ToAbsl(path));
  request.headers = CommonHeaders(options_);
  request.headers.emplace("Accept", "text/event-stream");
  request.headers.emplace("Content-Type", "application/json");
  request.content_length_ = body.size();
  // cpp-httplib makes the first call once it is connected, and reports that in no other way. The provider also avoids
  // its copies of the body.
  request.content_provider_ = [&handlers, body, connected = false](size_t offset, size_t length,
                                                                   httplib::DataSink& sink) mutable {
    if (!std::exchange(connected, true) && !handlers.on_connected()) return false;
    sink.write(body.data() + offset, length);
    return true;  // false would mean a cancellation; a failed write is noticed anyway
  };
  return Send(impl_.get(), handlers);
}

UpstreamResult UpstreamConnection::Get(std::string_view path, const Handlers& handlers) {
  httplib::Request& request = impl_->request = {};
  request.method = "GET";
  request.path = absl::StrCat(options_.url.base_path, base::ToAbsl(path));
  request.headers = CommonHeaders(options_);
  request.headers.emplace("Accept", "application/json");
  return Send(impl_.get(), handlers);
}

UpstreamResult UpstreamConnection::Send(Impl* impl, const Handlers& handlers) {
  UpstreamResult result;
  SteadyClock::time_point last_sign = SteadyClock::now();
  impl->request.response_handler = [&](const httplib::Response& response) {
    last_sign = SteadyClock::now();
    result.status = response.status;
    return handlers.on_head(response.status,
                            {response.get_header_value("Content-Type"), response.get_header_value("Retry-After")});
  };
  impl->request.content_receiver = [&](const char* data, size_t size, uint64_t, uint64_t) {
    last_sign = SteadyClock::now();
    return handlers.on_body({data, size});
  };
  httplib::Response response;
  httplib::Error error = httplib::Error::Success;
  const bool sent = impl->client->send(impl->request, response, error);
  impl->request = {};
  if (!sent && error == httplib::Error::Success) error = httplib::Error::Unknown;
  // A read that times out is reported as one that failed. The timeout, in whole milliseconds, starts at the last byte
  // or a little later.
  const auto timeout = absl::ToChronoNanoseconds(options_.silence_timeout - absl::Milliseconds(1));
  result.end = EndOf(error, SteadyClock::now() - last_sign >= timeout);
  used_ = result.end == UpstreamResult::End::kWhole && impl->client->is_socket_open() != 0;
  return result;
}

UpstreamConnectionPool::UpstreamConnectionPool(const UpstreamConnectionOptions& options, size_t max_connections,
                                               absl::Duration max_idle, base::Metrics* metrics)
    : options_(options),
      max_connections_(max_connections),
      max_idle_(max_idle),
      idle_gauge_(metrics->Gauge("runnel_upstream_idle_connections", "Idle upstream connections kept for reuse.")) {}

std::unique_ptr<UpstreamConnection> UpstreamConnectionPool::Take(bool fresh) {
  std::vector<Idle> old;
  {
    base::MutexLock lock(&mu_);
    old = TakeOldLocked();
    if (!fresh && !idle_.empty()) {
      auto connection = std::move(idle_.back().connection);
      idle_.pop_back();
      SetGaugeLocked();
      return connection;
    }
  }
  return std::make_unique<UpstreamConnection>(options_);
}

void UpstreamConnectionPool::Put(std::unique_ptr<UpstreamConnection> connection) {
  std::vector<Idle> old;  // destroyed after the lock
  base::MutexLock lock(&mu_);
  old = TakeOldLocked();
  if (idle_.size() < max_connections_) idle_.push_back({std::move(connection), SteadyClock::now()});
  SetGaugeLocked();
}

void UpstreamConnectionPool::SetGaugeLocked() {
  idle_gauge_.Increment(static_cast<double>(idle_.size()) - static_cast<double>(gauged_));
  gauged_ = idle_.size();
}

std::vector<UpstreamConnectionPool::Idle> UpstreamConnectionPool::TakeOldLocked() {
  const auto oldest = SteadyClock::now() - absl::ToChronoNanoseconds(max_idle_);
  const auto keep = std::find_if(idle_.begin(), idle_.end(), [&](const Idle& each) { return each.since > oldest; });
  std::vector<Idle> old(std::make_move_iterator(idle_.begin()), std::make_move_iterator(keep));
  idle_.erase(idle_.begin(), keep);
  SetGaugeLocked();
  return old;
}

}  // namespace runnel::inference
