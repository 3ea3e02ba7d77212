#include "services/inference/journal/journal_metrics.h"

#include <string>

#include "absl/strings/ascii.h"

namespace runnel::inference {

JournalMetrics::JournalMetrics(base::Metrics* metrics)
    : append_seconds(metrics->Histogram(
          "runnel_log_append_seconds", "Time from an append to its acknowledgement by the store of the shared log.",
          {0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10})),
      batch_events(metrics->Histogram("runnel_log_batch_events", "Events that the journal sent to the store together.",
                                      {1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 5000})),
      bytes(metrics->Counter("runnel_log_bytes_total", "Bytes of records and finished logs sent to the store.")),
      unprotected_seconds(metrics->Counter("runnel_log_unprotected_seconds_total",
                                           "Time in which generations ran without the store acknowledging their "
                                           "logs.")),
      unprotected_generations(metrics->Counter("runnel_log_unprotected_generations_total",
                                               "Generations that showed readers events before they were stored; each "
                                               "counts once in an unprotected period.")),
      too_large(metrics->Counter("runnel_log_too_large_total",
                                 "Generations whose log was larger than --log_max_bytes, so its rest was not stored.")),
      refilled_events(metrics->Counter("runnel_log_refilled_events_total",
                                       "Events stored after readers had seen them, or stored again.")),
      fenced(metrics->Counter("runnel_log_fenced_total",
                              "Generations given up because another replica continues them or they were deleted.")),
      lost_tails(
          metrics->Counter("runnel_log_lost_tail_total", "Generations whose end was given up without being stored.")),
      lost_leases(metrics->Counter("runnel_log_lost_leases_total",
                                   "Times that this replica's lease had expired before it was renewed.")),
      connected(metrics->Gauge("runnel_log_connected", "1 if the store of the shared log can be used, else 0.")),
      is_unprotected(metrics->Gauge("runnel_log_unprotected", "1 while logs are not protected by the store, else 0.")),
      open(metrics->Gauge("runnel_log_open_generations", "Generations whose log is not completely stored yet.")),
      metrics_(metrics) {}

void JournalMetrics::CountFailure(std::string_view reason) {
  metrics_
      ->Counter("runnel_log_failures_total", "Failures of the store of the shared log, by reason.",
                {{"reason", absl::AsciiStrToLower(absl::string_view(reason.data(), reason.size()))}})
      .Increment();
}

void JournalMetrics::CountRead(std::string_view result) {
  metrics_
      ->Counter("runnel_log_reads_total", "Generations looked up in the shared log, by result.",
                {{"result", std::string(result)}})
      .Increment();
}

}  // namespace runnel::inference
