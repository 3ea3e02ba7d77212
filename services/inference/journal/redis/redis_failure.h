#pragma once

#include <string_view>

#include "absl/status/status.h"

namespace runnel::inference {

// Why there is no connection.
struct RedisFailure {
  enum class Reason {
    kRefused,   // nothing listens there, or the network has no way to it
    kName,      // the name of the host has no address
    kTimeout,   // it does not reply in time
    kClosed,    // it has closed the connection
    kTls,       // the handshake failed, or a certificate is not trusted
    kOptions,   // a file that the options name cannot be used, or the server has no such database
    kPassword,  // user or password is wrong, or the user may not do what is needed
    kNotRedis,  // it replies with bytes that are not Redis's protocol, or with replies that are out of bounds
    kVersion,   // it is older than 6.2
    kReplica,   // it is a read-only replica
    kCluster,   // it is a node of a cluster, which has the keys of some generations only
    kLoading,   // it is still loading its data
    kSentinel,  // no Sentinel replied with the address of a master
    kStopped,   // RedisClient::Stop was called
  };

  Reason reason = Reason::kClosed;
  absl::Status status = {};  // Unavailable: names the server and says what is wrong; no secrets
};

// For the label of a metric, for example "not_redis".
std::string_view Name(RedisFailure::Reason reason);

}  // namespace runnel::inference
