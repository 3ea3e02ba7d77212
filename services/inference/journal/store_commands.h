#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/inference/journal/redis/redis_reply.h"
#include "services/inference/journal/store_link.h"

namespace runnel::inference {

using StoreCommand = std::vector<std::string>;

// A copy of a reply.
struct StoreReply {
  absl::Status status;                     // of the connection: without it the outcome is not known
  std::string error;                       // of the server: the error's code, or "ERROR"; empty: none
  bool nil = true;                         // no value; also for an error
  int64_t integer = 0;                     // of an integer
  std::string text;                        // of a string or a status
  std::vector<std::string> elements = {};  // of an array: all strings in it, however it is nested

  bool ok() const { return status.ok() && error.empty(); }
};
// Only what failed.
StoreReply CopyError(const absl::StatusOr<RedisReply>& reply);
StoreReply CopyReply(const absl::StatusOr<RedisReply>& reply);

// Sends all commands in a row, and calls `done` with all replies once the last one is there. No effect without
// commands.
using StoreRepliesCallback = absl::AnyInvocable<void(std::vector<StoreReply>)>;
void SendAll(StoreLink* link, const std::vector<StoreCommand>& commands, StoreRepliesCallback done);

// Returns the first failure of the connection, or OK.
absl::Status ConnectionStatus(const std::vector<StoreReply>& replies);
// Why the command was not executed: the error of the server, or BUSY if the connection has too much pending; empty if
// it was executed or that is not known.
std::string ErrorOf(const StoreReply& reply);
// Returns the code of the first such error, or an empty string.
std::string FirstError(const std::vector<StoreReply>& replies);

// For PX and PEXPIRE, at least 1.
std::string Milliseconds(absl::Duration duration);

}  // namespace runnel::inference
