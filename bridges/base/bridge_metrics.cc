#include "bridges/base/bridge_metrics.h"

namespace runnel::bridge {
namespace {

base::Labels With(base::Labels labels, const std::string& key, const std::string& value) {
  labels[key] = value;
  return labels;
}

constexpr char kResumes[] = "runnel_resumes_total";
constexpr char kResumesHelp[] = "Streams opened with a cursor, by result.";
constexpr char kLost[] = "runnel_lost_generations_total";
constexpr char kLostHelp[] =
    "Readers that received generation_lost, by what is known about the replica: lost; stopped (an orderly shutdown); "
    "unknown (only the reader's cursor shows that the generation existed).";
constexpr char kReferrals[] = "runnel_referrals_total";
constexpr char kReferralsHelp[] =
    "Requests for a generation sent on to another replica, by cause: owned_elsewhere (the replica named another one); "
    "log_unavailable (it could not reach the store); moved (it lost the generation to another one); gone (another one "
    "reported that it is gone).";
constexpr char kDisconnects[] = "runnel_client_disconnects_total";
constexpr char kDisconnectsHelp[] = "Connections that the client closed, by phase.";

}  // namespace

BridgeMetrics::BridgeMetrics(base::Metrics* metrics, const std::string& transport)
    : registry(metrics),
      labels{{"transport", transport}},
      connections(metrics->Gauge("runnel_connections_active", "Open connections.", labels)),
      connections_accepted(metrics->Counter("runnel_connections_total", "Connections accepted.", labels)),
      connections_refused(metrics->Counter("runnel_connections_refused_total",
                                           "Connections above the limit, closed with a 503.", labels)),
      streams(metrics->Gauge("runnel_streams_active", "Open streams.", labels)),
      streams_paused(metrics->Gauge("runnel_streams_paused",
                                    "Streams without an attachment until their socket has accepted all pending bytes.",
                                    labels)),
      pending_bytes(
          metrics->Gauge("runnel_pending_bytes", "Encoded bytes that sockets have not accepted yet.", labels)),
      unfinished_bytes(metrics->Gauge("runnel_unfinished_bytes",
                                      "Bytes of requests and messages that are not complete yet.", labels)),
      unfinished_rejected(metrics->Counter(
          "runnel_unfinished_rejected_total",
          "Requests and messages rejected because incomplete ones held --max_unfinished_bytes.", labels)),
      connection_exceptions(metrics->Counter("runnel_connection_exceptions_total",
                                             "Connections ended by an exception inside the bridge.", labels)),
      events(metrics->Counter("runnel_events_sent_total", "Events encoded.", labels)),
      tokens(metrics->Counter("runnel_tokens_sent_total", "Tokens in the events encoded.", labels)),
      bytes(metrics->Counter("runnel_bytes_sent_total", "Bytes of streams that sockets accepted.", labels)),
      heartbeats(metrics->Counter("runnel_heartbeats_sent_total", "Heartbeats sent.", labels)),
      resumes_replayed(metrics->Counter(kResumes, kResumesHelp, With(labels, "result", "replayed"))),
      resumes_gap(metrics->Counter(kResumes, kResumesHelp, With(labels, "result", "gap"))),
      resumes_gone(metrics->Counter(kResumes, kResumesHelp, With(labels, "result", "gone"))),
      replayed_events(metrics->Counter("runnel_replayed_events_total",
                                       "Events sent that were in the log before their stream was opened.", labels)),
      slow_pauses(metrics->Counter("runnel_slow_consumer_pauses_total",
                                   "Attachments paused because the socket was too slow.", labels)),
      slow_disconnects(metrics->Counter(
          "runnel_slow_consumer_disconnects_total",
          "Connections closed because the socket accepted no bytes within the write timeout.", labels)),
      client_disconnects_request(metrics->Counter(kDisconnects, kDisconnectsHelp, With(labels, "phase", "request"))),
      client_disconnects_stream(metrics->Counter(kDisconnects, kDisconnectsHelp, With(labels, "phase", "stream"))),
      broken_streams(metrics->Counter("runnel_broken_streams_total",
                                      "Streams cut by the bridge before their terminal event.", labels)),
      links_connected(metrics->Gauge("runnel_links_connected", "Links to the inference service that are up.", labels)),
      link_attachments(metrics->Gauge("runnel_link_attachments", "Attachments on all Links.", labels)),
      known_replicas(metrics->Gauge("runnel_known_replicas",
                                    "Replica processes that are reached, or whose logs would not have been purged yet.",
                                    labels)),
      link_losses(metrics->Counter("runnel_link_losses_total", "Links lost.", labels)),
      link_batches(metrics->Counter("runnel_link_batches_total", "Batches received over Links.", labels)),
      link_events(metrics->Counter("runnel_link_events_total", "Events received over Links.", labels)),
      link_read_pauses(metrics->Counter("runnel_link_read_pauses_total",
                                        "Pauses in reading a Link because its thread was behind.", labels)),
      lost_generations(metrics->Counter(kLost, kLostHelp, With(labels, "replica", "lost"))),
      lost_generations_stopped(metrics->Counter(kLost, kLostHelp, With(labels, "replica", "stopped"))),
      lost_generations_unknown(metrics->Counter(kLost, kLostHelp, With(labels, "replica", "unknown"))),
      reattachments(metrics->Counter("runnel_link_reattachments_total",
                                     "Attachments repeated after the loss of their Link or a pause.", labels)),
      referrals_elsewhere(metrics->Counter(kReferrals, kReferralsHelp, With(labels, "cause", "owned_elsewhere"))),
      referrals_unavailable(metrics->Counter(kReferrals, kReferralsHelp, With(labels, "cause", "log_unavailable"))),
      referrals_moved(metrics->Counter(kReferrals, kReferralsHelp, With(labels, "cause", "moved"))),
      referrals_gone(metrics->Counter(kReferrals, kReferralsHelp, With(labels, "cause", "gone"))) {}

void BridgeMetrics::CountRequest(int status) {
  registry
      ->Counter("runnel_http_requests_total", "Requests, by the status of the response.",
                With(labels, "code", std::to_string(status)))
      .Increment();
}

}  // namespace runnel::bridge
