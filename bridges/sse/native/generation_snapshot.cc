#include "bridges/sse/native/generation_snapshot.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "bridges/server/inference_client.h"
#include "bridges/sse/stream/collecting_reader.h"
#include "services/base/grpc_status.h"
#include "services/base/status_macros.h"

namespace runnel::sse {
namespace {

using bridge::Awaitable;

// Text that one call may bring. Most answers are smaller, and need nothing else.
constexpr uint64_t kOneCallBytes = 256 << 10;

absl::Status TooLarge() {
  return base::MakeError(absl::StatusCode::kFailedPrecondition, "TEXT_TOO_LARGE",
                         "the text is too long to be given in one piece: read it as a stream of events");
}

// Puts the texts that were read, and what the log says up to there, in the place of what the call said.
void ReplaceByRead(bridge::CollectedGeneration answer, uint64_t last_seq, v1::Generation* generation) {
  generation->set_text_omitted(false);
  generation->set_last_seq(last_seq);
  generation->mutable_usage()->set_completion_tokens(answer.tokens);
  for (int i = 0; i < generation->choices_size(); ++i) {
    v1::ChoiceText& choice = *generation->mutable_choices(i);
    if (choice.index() < answer.choices.size()) choice.set_text(std::move(answer.choices[choice.index()].text));
  }
  if (answer.failed.has_value()) {
    generation->set_status(v1::GENERATION_STATUS_FAILED);
    *generation->mutable_failed() = *std::move(answer.failed);
  }
  if (!answer.done.has_value()) return;
  generation->set_status(v1::GENERATION_STATUS_DONE);
  *generation->mutable_usage() = answer.done->usage();
  for (int i = 0; i < std::min(generation->choices_size(), answer.done->choices_size()); ++i) {
    generation->mutable_choices(i)->set_finish_reason(answer.done->choices(i).finish_reason());
  }
  *generation->mutable_done() = *std::move(answer.done);
}

}  // namespace

Awaitable<absl::StatusOr<v1::Generation>> ReadGeneration(bridge::IoThread* thread, HttpConnection* connection,
                                                         std::string id, std::string principal) {
  absl::StatusOr<v1::Generation> generation =
      co_await thread->client->GetGeneration(thread, id, principal, kOneCallBytes);
  if (!generation.ok() || !generation->text_omitted()) co_return generation;
  CollectingReader reader(&thread->io, &thread->router, kMaxCollectedBytes);
  reader.subscription().Attach(id, 0, principal, v1::GAP_POLICY_FAIL);
  const auto read = [&reader] {
    return reader.ended() || reader.too_large() ||
           (reader.opened() && reader.subscription().last_seq() >= reader.info().last_seq);
  };
  while (!read()) {
    if (!co_await reader.WaitFor(connection, absl::InfiniteDuration())) {
      co_return absl::CancelledError("the client has gone");
    }
  }
  connection->StopWatching();
  if (reader.too_large()) co_return TooLarge();
  if (reader.ended() && !reader.subscription().terminal_seen()) co_return reader.status();
  const bool ended_since = reader.ended() && !generation->has_expire_time();
  ReplaceByRead(reader.Take(), reader.subscription().last_seq(), &*generation);
  if (!ended_since) co_return generation;
  // Only now it is known when it expires.
  const absl::StatusOr<v1::Generation> again = co_await thread->client->GetGeneration(thread, id, principal, 0);
  if (again.ok() && again->has_expire_time()) *generation->mutable_expire_time() = again->expire_time();
  co_return generation;
}

}  // namespace runnel::sse
