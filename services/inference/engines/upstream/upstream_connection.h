#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/time/time.h"
#include "services/base/metrics.h"
#include "services/base/mutex.h"
#include "services/inference/engines/upstream/upstream_url.h"

namespace runnel::inference {

struct UpstreamConnectionOptions {
  UpstreamUrl url;
  std::string api_key;  // empty: none is sent
  std::string ca_file;  // PEM; empty: the system's
  absl::Duration connect_timeout;
  absl::Duration write_timeout;
  absl::Duration silence_timeout;  // the longest time without a byte from the server
};

// The result of an exchange.
struct UpstreamResult {
  enum class End {
    kWhole,      // the response was read to its end
    kNoConnect,  // nothing was sent: no connection
    kUntrusted,  // nothing was sent: the TLS handshake failed, or the server's certificate is not trusted
    kSilent,     // no byte arrived for silence_timeout
    kCut,        // the connection was lost, or Stop was called
    kUnwanted,   // a handler returned false
  };
  End end = End::kCut;
  int status = 0;  // of HTTP; 0: no response
};

// A blocking HTTP connection to the upstream, kept alive between exchanges. Used by one thread at a time, except Stop.
// The process must ignore SIGPIPE.
class UpstreamConnection {
 public:
  // The response headers that are used; empty if absent.
  struct Head {
    std::string content_type;
    std::string retry_after;
  };
  struct Handlers {
    // The connection is established and nothing is sent yet. Stop works from now on.
    std::function<bool()> on_connected;
    // The status line and headers have arrived.
    std::function<bool(int status, const Head& head)> on_head;
    // The next bytes of the body, whatever the status.
    std::function<bool(std::string_view bytes)> on_body;
  };

  explicit UpstreamConnection(const UpstreamConnectionOptions& options);
  ~UpstreamConnection();

  // `path` is below the URL's base path and begins with '/'. A handler that returns false ends the exchange.
  UpstreamResult Post(std::string_view path, std::string_view body, const Handlers& handlers);
  // `handlers.on_connected` is not called.
  UpstreamResult Get(std::string_view path, const Handlers& handlers);

  // Makes the exchange that is under way end with kCut immediately. Any thread. While connecting it would block until
  // that is done, so call it only between on_connected and the end of Post.
  void Stop();

  // The last exchange was complete and the connection is open as far as known: the server may have closed it meanwhile.
  bool used() const { return used_; }

 private:
  struct Impl;
  UpstreamResult Send(Impl* impl, const Handlers& handlers);

  const UpstreamConnectionOptions options_;
  const std::unique_ptr<Impl> impl_;
  bool used_ = false;
};

// Idle connections, the last used first. Thread-safe.
class UpstreamConnectionPool {
 public:
  // Connections idle for `max_idle` are closed when one is taken or given back; at most `max_connections` are kept.
  UpstreamConnectionPool(const UpstreamConnectionOptions& options, size_t max_connections, absl::Duration max_idle,
                         base::Metrics* metrics);

  // An idle connection, or a new one if there is none or `fresh` is true.
  std::unique_ptr<UpstreamConnection> Take(bool fresh) EXCLUDES(mu_);
  // Requires used().
  void Put(std::unique_ptr<UpstreamConnection> connection) EXCLUDES(mu_);

 private:
  struct Idle {
    std::unique_ptr<UpstreamConnection> connection;
    std::chrono::steady_clock::time_point since;
  };
  // Moves out the connections that are too old; the caller destroys them without the lock.
  std::vector<Idle> TakeOldLocked() REQUIRES(mu_);
  // All pools share one gauge.
  void SetGaugeLocked() REQUIRES(mu_);

  const UpstreamConnectionOptions options_;
  const size_t max_connections_;
  const absl::Duration max_idle_;
  prometheus::Gauge& idle_gauge_;
  base::Mutex mu_;
  std::vector<Idle> idle_ GUARDED_BY(mu_);  // in the order of `since`
  size_t gauged_ GUARDED_BY(mu_) = 0;       // of idle_, in the gauge
};

}  // namespace runnel::inference
