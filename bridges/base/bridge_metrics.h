#pragma once

#include <string>

#include "services/base/metrics.h"

namespace runnel::bridge {

// The metrics that both bridges have, made once; `transport` (sse, ws) labels them. Each is thread-safe. Count events
// and bytes once a write rather than once an event.
struct BridgeMetrics {
  BridgeMetrics(base::Metrics* metrics, const std::string& transport);

  base::Metrics* const registry;
  const base::Labels labels;

  prometheus::Gauge& connections;
  prometheus::Counter& connections_accepted;
  prometheus::Counter& connections_refused;
  prometheus::Gauge& streams;
  prometheus::Gauge& streams_paused;
  prometheus::Gauge& pending_bytes;     // as of the last tick, as link_attachments
  prometheus::Gauge& unfinished_bytes;  // as of the last look
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
  prometheus::Counter& client_disconnects_request;  // before an answer
  prometheus::Counter& client_disconnects_stream;   // within a stream
  prometheus::Counter& broken_streams;              // cut by us: the service was lost, or we stop

  prometheus::Gauge& links_connected;
  prometheus::Gauge& link_attachments;
  prometheus::Gauge& known_replicas;
  prometheus::Counter& link_losses;
  prometheus::Counter& link_batches;
  prometheus::Counter& link_events;
  prometheus::Counter& link_read_pauses;
  // By what is known of the replica that kept it.
  prometheus::Counter& lost_generations;
  prometheus::Counter& lost_generations_stopped;
  prometheus::Counter& lost_generations_unknown;
  prometheus::Counter& reattachments;

  // runnel_http_requests_total by status.
  void CountRequest(int status);
};

}  // namespace runnel::bridge
