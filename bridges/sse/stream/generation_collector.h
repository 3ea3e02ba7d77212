#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <utility>

#include "bridges/base/net.h"
#include "bridges/base/options.h"
#include "bridges/server/io_threads.h"
#include "bridges/sse/http/http_connection.h"
#include "bridges/sse/stream/api_call.h"
#include "bridges/sse/stream/subscription_waiter.h"
#include "bridges/wire/collected_generation.h"
#include "runnel/v1/inference.pb.h"

namespace runnel::sse {

// The most memory that a response in one piece may take.
inline constexpr size_t kMaxCollectedBytes = 16 << 20;

// Collects a generation for a response in one piece. It pauses when it has collected more than `max_bytes`. After a gap
// it collects the log again from its beginning: nothing was sent yet, and only the log has everything.
class GenerationCollector final : public SubscriptionWaiter {
 public:
  // `thread` must outlive it.
  explicit GenerationCollector(bridge::IoThread* thread, size_t max_bytes = kMaxCollectedBytes)
      : SubscriptionWaiter(&thread->io, &thread->router), max_bytes_(max_bytes) {}

  const bridge::CollectedGeneration& collected() const { return collected_; }
  bridge::CollectedGeneration Take() { return std::move(collected_); }
  bool too_large() const { return collected_.bytes > max_bytes_; }

  void OnEvent(bridge::Subscription* subscription, v1::GenerationEvent& event) override;

 private:
  const size_t max_bytes_;
  bridge::CollectedGeneration collected_;
};

// Sets the detach timeout of a generation that must not outlive its client. While the bridge lives it cancels the
// generation itself when the client disconnects; the timeout is for the death of the bridge. It is not 0, because a
// slow client gives its attachment up now and then, and so does a Link that is lost.
void SetDetachTimeout(const bridge::BridgeOptions& options, v1::GenerateRequest* request);

// What a FIN of the client means while it waits for a response in one piece. Nothing has been sent to it yet, so a
// client that called close() cannot be told apart from one that called shutdown(SHUT_WR). OpenAI's libraries abort a
// call by close(), and the generation must not run on then; so for their calls a FIN means that the client has
// disconnected.
enum class OnHalfClose { kGiveUp, kContinue };

// Collects until the end. False if the client has disconnected. The generation is cancelled then, and when it has
// become too large.
bridge::Awaitable<bool> CollectToEnd(bridge::IoThread* thread, HttpConnection* connection,
                                     GenerationCollector* collector, OnHalfClose on_half_close);

// Collects what the log of a generation of the caller has when this is called, into `collector`, which must be empty.
// If a takeover replaces the log meanwhile, it begins again, a few times. False if the client has disconnected.
bridge::Awaitable<bool> CollectLog(const ApiCall* call, std::string id, std::optional<GenerationCollector>* collector);

}  // namespace runnel::sse
