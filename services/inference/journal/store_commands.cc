#include "services/inference/journal/store_commands.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"

namespace runnel::inference {
namespace {

void AddTexts(const RedisReply& reply, std::vector<std::string>* texts) {
  if (reply.type() != RedisReply::Type::kArray) {
    texts->emplace_back(reply.text());
    return;
  }
  for (size_t i = 0; i < reply.size(); ++i) AddTexts(reply[i], texts);
}

}  // namespace

StoreReply CopyError(const absl::StatusOr<RedisReply>& reply) {
  StoreReply copy;
  copy.status = reply.status();
  if (reply.ok() && reply->is_error()) {
    copy.error = reply->error_code().empty() ? "ERROR" : std::string(reply->error_code());
  }
  return copy;
}

StoreReply CopyReply(const absl::StatusOr<RedisReply>& reply) {
  StoreReply copy = CopyError(reply);
  if (!reply.ok()) return copy;
  copy.nil = reply->is_nil() || reply->is_error();
  switch (reply->type()) {
    case RedisReply::Type::kNil:
    case RedisReply::Type::kError:
      break;
    case RedisReply::Type::kInteger:
      copy.integer = reply->integer();
      break;
    case RedisReply::Type::kString:
    case RedisReply::Type::kStatus:
      copy.text = std::string(reply->text());
      break;
    case RedisReply::Type::kArray:
      AddTexts(*reply, &copy.elements);
      break;
  }
  return copy;
}

void SendAll(StoreLink* link, const std::vector<StoreCommand>& commands, StoreRepliesCallback done) {
  struct Pending {
    std::vector<StoreReply> replies;
    StoreRepliesCallback done;
  };
  auto pending = std::make_shared<Pending>();
  pending->done = std::move(done);
  const size_t count = commands.size();
  for (const StoreCommand& command : commands) {
    const std::vector<std::string_view> args(command.begin(), command.end());
    link->Send(args, [pending, count](const absl::StatusOr<RedisReply>& reply) {
      pending->replies.push_back(CopyReply(reply));
      if (pending->replies.size() == count) pending->done(std::move(pending->replies));
    });
  }
}

absl::Status ConnectionStatus(const std::vector<StoreReply>& replies) {
  const auto failed = std::find_if(replies.begin(), replies.end(), [](const auto& each) { return !each.status.ok(); });
  return failed == replies.end() ? absl::OkStatus() : failed->status;
}

std::string ErrorOf(const StoreReply& reply) { return absl::IsResourceExhausted(reply.status) ? "BUSY" : reply.error; }

std::string FirstError(const std::vector<StoreReply>& replies) {
  for (const StoreReply& reply : replies) {
    if (std::string error = ErrorOf(reply); !error.empty()) return error;
  }
  return "";
}

std::string Milliseconds(absl::Duration duration) {
  return absl::StrCat(std::max<int64_t>(absl::ToInt64Milliseconds(duration), 1));
}

}  // namespace runnel::inference
