#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "services/inference/journal/redis/redis_client.h"
#include "services/inference/journal/redis/redis_failure.h"
#include "services/inference/journal/redis/redis_reply.h"

namespace runnel::inference {

// Why a server cannot be used; nothing if it can be.
struct ServerProblem {
  RedisFailure::Reason reason;
  std::string text;  // continues "Redis at host:port: "
};

// Reads the reply to INFO into the fields of `info` that it tells.
std::optional<ServerProblem> ReadServerInfo(RedisReply reply, RedisServerInfo* info);

// Reads the reply to AUTH and to SELECT.
std::optional<ServerProblem> CheckAuth(RedisReply reply);
std::optional<ServerProblem> CheckSelect(RedisReply reply, int db);

// What an error says that any command may get; nothing if it says nothing about the server itself.
std::optional<ServerProblem> ProblemOf(RedisReply error);

}  // namespace runnel::inference
