#include "bridges/sse/stream/collecting_reader.h"

#include <algorithm>
#include <utility>

#include "bridges/server/inference_client.h"

namespace runnel::sse {
namespace {

// Beyond the longest that a reader may be without an attachment.
constexpr absl::Duration kDetachSlack = absl::Seconds(5);

}  // namespace

void EndWithClient(const bridge::BridgeOptions& options, v1::GenerateRequest* request) {
  const absl::Duration timeout = std::max(options.write_timeout, options.recovery_timeout) + kDetachSlack;
  request->mutable_detach_timeout()->set_seconds(std::min<int64_t>(absl::ToInt64Seconds(timeout), 86'400));
}

bridge::Awaitable<bool> ReadToEnd(bridge::IoThread* thread, HttpConnection* connection, CollectingReader* reader,
                                  OnHalfClose on_half_close) {
  bool here = true;
  while (here && !reader->ended() && !reader->too_large()) {
    here = co_await reader->WaitFor(connection, absl::InfiniteDuration());
    if (connection->half_closed() && on_half_close == OnHalfClose::kGiveUp && !reader->ended()) here = false;
  }
  if (here) connection->StopWatching();
  // A start that is under way has no id yet by which it could be cancelled. Its answer comes within --open_timeout.
  while (!reader->opened() && !reader->ended()) co_await reader->Wait();
  if (!reader->ended()) {
    thread->client->CancelGeneration(thread, reader->subscription().generation_id(), reader->subscription().principal(),
                                     [](const absl::StatusOr<v1::CancelGenerationResponse>&) {});
  }
  co_return here;
}

void CollectingReader::OnEvent(bridge::Subscription* subscription, v1::GenerationEvent& event) {
  collected_.Add(event);
  if (too_large()) subscription->Pause();
}

}  // namespace runnel::sse
