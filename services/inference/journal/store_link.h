#pragma once

#include <initializer_list>
#include <span>
#include <string_view>
#include <utility>

#include "absl/functional/any_invocable.h"
#include "services/inference/journal/redis/redis_client.h"

namespace runnel::inference {

// What the journal uses of a RedisClient, on its thread. Tests put an object between the two that holds or drops
// commands and replies.
class StoreLink {
 public:
  using ReplyCallback = RedisClient::ReplyCallback;

  virtual ~StoreLink() = default;
  // See RedisClient::Send and RedisClient::Post.
  virtual void Send(std::span<const std::string_view> args, ReplyCallback done) = 0;
  virtual void Post(absl::AnyInvocable<void()> function) = 0;

  void Send(std::initializer_list<std::string_view> args, ReplyCallback done) {
    Send(std::span(args.begin(), args.size()), std::move(done));
  }
};

}  // namespace runnel::inference
