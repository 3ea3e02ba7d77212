#include "services/inference/journal/redis/redis_failure.h"

namespace runnel::inference {

std::string_view Name(RedisFailure::Reason reason) {
  using Reason = RedisFailure::Reason;
  switch (reason) {
    case Reason::kRefused:
      return "refused";
    case Reason::kName:
      return "name";
    case Reason::kTimeout:
      return "timeout";
    case Reason::kClosed:
      return "closed";
    case Reason::kTls:
      return "tls";
    case Reason::kOptions:
      return "options";
    case Reason::kPassword:
      return "password";
    case Reason::kNotRedis:
      return "not_redis";
    case Reason::kVersion:
      return "version";
    case Reason::kReplica:
      return "replica";
    case Reason::kCluster:
      return "cluster";
    case Reason::kLoading:
      return "loading";
    case Reason::kSentinel:
      return "sentinel";
    case Reason::kStopped:
      return "stopped";
  }
  return "";
}

}  // namespace runnel::inference
