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
  absl::Duration silence_timeout;  // the longest that the server may send no byte
};

// How an exchange went.
struct UpstreamResult {
  enum class End {
    kWhole,      // the response was read to its end
    kNoConnect,  // nothing was sent: no connection
    kUntrusted,  // nothing was sent: TLS could not be agreed, or the server's certificate is not accepted
    kSilent,     // no byte came for silence_timeout
    kCut,        // the connection was lost, or Stop was called
    kUnwanted,   // a handler returned false
  };
  End end = End::kCut;
  int status = 0;  // of HTTP; 0: the response has not begun
};

// A blocking HTTP connection to the upstream, kept alive between exchanges. One thread at a time, but for Stop. The
// process must ignore SIGPIPE.
class UpstreamConnection {
 public:
  // Of the headers of a response, those that matter here; empty if absent.
  struct Head {
    std::string content_type;
    std::string retry_after;
  };
  struct Handlers {
    // The connection stands, nothing is sent yet, and Stop works from now on.
    std::function<bool()> on_connected;
    // The status line and headers have come.
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

  // Makes the exchange that is under way end with kCut at once. Any thread; but while the connection is being made it
  // would block until that is done, so call it between on_connected and the end of Post only.
  void Stop();

  // The last exchange was whole and the connection is still open, as far as is known: the next exchange may find that
  // the server has closed it meanwhile.
  bool used() const { return used_; }

 private:
  struct Impl;
  UpstreamResult Send(Impl* impl, const Handlers& handlers);

  const UpstreamConnectionOptions options_;
  const std::unique_ptr<Impl> impl_;
  bool used_ = false;
};

// Connections that are not in use, the last used first. Thread-safe.
class UpstreamConnectionPool {
 public:
  // Those that nobody used for `max_idle` are closed when one is taken or given back; `max_connections` are kept.
  UpstreamConnectionPool(const UpstreamConnectionOptions& options, size_t max_connections, absl::Duration max_idle,
                         base::Metrics* metrics);

  // One that waits here, or a new one if there is none or `fresh` is asked for.
  std::unique_ptr<UpstreamConnection> Take(bool fresh) EXCLUDES(mu_);
  // Only one that is used().
  void Put(std::unique_ptr<UpstreamConnection> connection) EXCLUDES(mu_);

 private:
  struct Idle {
    std::unique_ptr<UpstreamConnection> connection;
    std::chrono::steady_clock::time_point since;
  };
  // Moves out what is too old; the caller lets it die without the lock.
  std::vector<Idle> TakeOldLocked() REQUIRES(mu_);
  // There are several pools, and one gauge.
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
