#pragma once

#include <cstddef>
#include <utility>

#include "bridges/base/net.h"
#include "bridges/base/options.h"
#include "bridges/server/io_threads.h"
#include "bridges/sse/http/http_connection.h"
#include "bridges/sse/stream/waiting_reader.h"
#include "bridges/wire/collected_generation.h"
#include "runnel/v1/inference.pb.h"

namespace runnel::sse {

// For an answer that is given in one piece. Beyond `max_bytes` it stops reading.
class CollectingReader final : public WaitingReader {
 public:
  // `io` and `router` must outlive it.
  CollectingReader(bridge::net::io_context* io, bridge::ReplicaRouter* router, size_t max_bytes)
      : WaitingReader(io, router), max_bytes_(max_bytes) {}

  const bridge::CollectedGeneration& collected() const { return collected_; }
  bridge::CollectedGeneration Take() { return std::move(collected_); }
  bool too_large() const { return collected_.bytes > max_bytes_; }

  void OnEvent(bridge::Subscription* subscription, v1::GenerationEvent& event) override;

 private:
  const size_t max_bytes_;
  bridge::CollectedGeneration collected_;
};

// The most that an answer in one piece may take in memory.
inline constexpr size_t kMaxCollectedBytes = 16 << 20;

// Makes `request` one whose generation goes with its client. The bridge cancels it by itself when the client goes; the
// detach timeout is for the death of the bridge. It must not be 0: a slow reader gives its attachment up now and then,
// and so does a Link that is lost.
void EndWithClient(const bridge::BridgeOptions& options, v1::GenerateRequest* request);

// What a FIN of the client means while it waits for an answer in one piece. Nothing can be sent to it before, so one
// that called close() cannot be told from one that called shutdown(SHUT_WR). The libraries of OpenAI abort a call by
// close(), and the generation must not run on then; so for their calls it means that the client has gone.
enum class OnHalfClose { kGiveUp, kGoOn };

// Reads what `reader` has begun to its end. False if the client has gone; the generation is cancelled then, as when it
// has become too large.
bridge::Awaitable<bool> ReadToEnd(bridge::IoThread* thread, HttpConnection* connection, CollectingReader* reader,
                                  OnHalfClose on_half_close);

}  // namespace runnel::sse
