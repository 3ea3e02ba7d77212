#include "bridges/sse/native/generation_snapshot.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "bridges/server/inference_client.h"
#include "bridges/sse/stream/generation_collector.h"
#include "services/base/grpc_status.h"
#include "services/base/status_macros.h"

namespace runnel::sse {
namespace {

using bridge::Awaitable;

// The longest text that one call returns. Most texts are shorter, and need nothing else.
constexpr uint64_t kOneCallBytes = 256 << 10;

absl::Status TooLarge() {
  return base::MakeError(absl::StatusCode::kFailedPrecondition, "TEXT_TOO_LARGE",
                         "the text is too long for one response: read the events of the generation as a stream");
}

// Replaces the text and the state that the call returned by those that were collected from the log.
void ApplyCollected(bridge::CollectedGeneration collected, bridge::LogPosition last, v1::Generation* generation) {
  generation->set_text_omitted(false);
  generation->set_last_seq(last.seq);
  generation->set_epoch(last.epoch);
  generation->mutable_usage()->set_completion_tokens(collected.tokens);
  for (int i = 0; i < generation->choices_size(); ++i) {
    v1::ChoiceText& choice = *generation->mutable_choices(i);
    if (choice.index() >= collected.choices.size()) continue;
    bridge::CollectedGeneration::Choice& read = collected.choices[choice.index()];
    choice.set_text(std::move(read.text));
    choice.mutable_parts()->Assign(std::make_move_iterator(read.parts.begin()),
                                   std::make_move_iterator(read.parts.end()));
  }
  if (collected.failed.has_value()) {
    generation->set_status(v1::GENERATION_STATUS_FAILED);
    *generation->mutable_failed() = *std::move(collected.failed);
  }
  if (!collected.done.has_value()) return;
  generation->set_status(v1::GENERATION_STATUS_DONE);
  *generation->mutable_usage() = collected.done->usage();
  for (int i = 0; i < std::min(generation->choices_size(), collected.done->choices_size()); ++i) {
    generation->mutable_choices(i)->set_finish_reason(collected.done->choices(i).finish_reason());
  }
  *generation->mutable_done() = *std::move(collected.done);
}

}  // namespace

Awaitable<absl::StatusOr<v1::Generation>> ReadGeneration(const ApiCall* call, std::string id) {
  bridge::IoThread* const thread = call->thread;
  const std::string& principal = call->request->principal;
  absl::StatusOr<v1::Generation> generation =
      co_await thread->client->GetGeneration(thread, id, principal, kOneCallBytes);
  if (!generation.ok() || !generation->text_omitted()) co_return generation;
  std::optional<GenerationCollector> log;
  const bool connected = co_await CollectLog(call, id, &log);
  if (!connected) co_return absl::CancelledError("the client has disconnected");
  GenerationCollector& collector = *log;
  if (collector.too_large()) co_return TooLarge();
  if (collector.ended() && !collector.subscription().terminal_seen()) co_return collector.status();
  const bool ended_since = collector.ended() && !generation->has_expire_time();
  ApplyCollected(collector.Take(), collector.subscription().position(), &*generation);
  if (!ended_since) co_return generation;
  // The time at which it expires is known only now.
  const absl::StatusOr<v1::Generation> again = co_await thread->client->GetGeneration(thread, id, principal, 0);
  if (again.ok() && again->has_expire_time()) *generation->mutable_expire_time() = again->expire_time();
  co_return generation;
}

}  // namespace runnel::sse
