#pragma once

#include <string>

#include "services/base/metrics.h"

namespace runnel::bridge {

// The metrics that both bridges have; `transport` (sse, ws) labels them. Each is thread-safe. Count events and bytes
// once per write rather than once per event.
struct BridgeMetrics {
  BridgeMetrics(base::Metrics* metrics, const std::string& transport);

  base::Metrics* const registry;
  const base::Labels labels;

  prometheus::Gauge& connections;
  prometheus::Counter& connections_accepted;
  prometheus::Counter& connections_refused;
  prometheus::Gauge& streams;
  prometheus::Gauge& streams_paused;
  prometheus::Gauge& pending_bytes;     // as of the last tick, like link_attachments
  prometheus::Gauge& unfinished_bytes;  // as of the last scrape
  prometheus::Counter& unfinished_rejected;
  prometheus::Counter& connection_exceptions;
  prometheus::Counter& events;
  prometheus::Counter& tokens;
  prometheus::Counter& bytes;
  prometheus::Counter& heartbeats;
  prometheus::Counter& resumes_replayed;
  prometheus::Counter& resumes_gap;
  prometheus::Counter& resumes_gone;
  prometheus::Counter& replayed_events;
  prometheus::Counter& slow_pauses;
  prometheus::Counter& slow_disconnects;
  prometheus::Counter& client_disconnects_request;  // before a response
  prometheus::Counter& client_disconnects_stream;   // within a stream
  prometheus::Counter& broken_streams;              // cut by the bridge: the service was lost, or the bridge stops

  prometheus::Gauge& links_connected;
  prometheus::Gauge& link_attachments;
  prometheus::Gauge& known_replicas;
  prometheus::Counter& link_losses;
  prometheus::Counter& link_batches;
  prometheus::Counter& link_events;
  prometheus::Counter& link_read_pauses;
  // By what is known about the replica that kept the log.
  prometheus::Counter& lost_generations;
  prometheus::Counter& lost_generations_stopped;
  prometheus::Counter& lost_generations_unknown;
  prometheus::Counter& reattachments;
  // By what sent a request on to another replica.
  prometheus::Counter& referrals_elsewhere;
  prometheus::Counter& referrals_unavailable;
  prometheus::Counter& referrals_moved;
  prometheus::Counter& referrals_gone;

  // runnel_http_requests_total by status.
  void CountRequest(int status);
};

}  // namespace runnel::bridge
