#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "bridges/sse/native/event_collector.h"
#include "bridges/sse/native/generation_api.h"
#include "bridges/sse/native/generation_parameters.h"
#include "bridges/wire/event_json.h"
#include "bridges/wire/part_json.h"
#include "services/base/grpc_status.h"
#include "services/base/status_macros.h"
#include "services/base/strings.h"

namespace runnel::sse {
namespace {

constexpr uint64_t kMaxWaitSeconds = 60;
// The service sends a gap right after the reply to an attach.
constexpr absl::Duration kGapGrace = absl::Milliseconds(250);

struct PollRequest {
  bridge::LogPosition after;
  absl::Duration wait;
  v1::GapPolicy gap_policy = v1::GAP_POLICY_SIGNAL;
};

absl::StatusOr<PollRequest> ReadPollRequest(const HttpRequest& request, const Route& route) {
  PollRequest poll;
  ASSIGN_OR_RETURN(poll.after, ReadCursor(request, route));
  RETURN_IF_ERROR(ReadGapPolicy(route, &poll.gap_policy));
  // HEAD describes the events that exist now.
  if (route.query.count("wait") == 0 || request.method == "HEAD") return poll;
  uint64_t seconds = 0;
  if (!absl::SimpleAtoi(base::ToAbsl(bridge::QueryValue(route.query, "wait")), &seconds) || seconds > kMaxWaitSeconds) {
    return base::InvalidField("wait", absl::StrCat("must be a whole number of seconds from 0 to ", kMaxWaitSeconds));
  }
  poll.wait = absl::Seconds(seconds);
  return poll;
}

// Whether `collector` has all events for the response.
bool IsComplete(const EventCollector& collector, const PollRequest& poll) {
  if (collector.ended() || collector.full()) return true;
  if (!collector.opened()) return false;
  // All events that the log had when the poll began, not only the first batch of them.
  if (!collector.events().empty()) return collector.events().back().seq() >= collector.info().last_seq;
  return poll.wait == absl::ZeroDuration() &&
         poll.after == bridge::LogPosition(collector.info().last_seq, collector.info().epoch);
}

// Whether a poll without a wait is at the end of the log, but in another epoch: either nothing is new, or a gap is
// still on its way.
bool MayHaveGap(const EventCollector& collector, const PollRequest& poll) {
  return collector.opened() && collector.events().empty() && poll.wait == absl::ZeroDuration() &&
         poll.after.seq == collector.info().last_seq;
}

bridge::HttpResponse PollResponse(const std::string& id, const EventCollector& collector) {
  v1::GenerationStatus status = collector.info().status;
  uint64_t last_seq = collector.info().last_seq;
  uint32_t epoch = collector.info().epoch;
  std::string events;
  for (const v1::GenerationEvent& event : collector.events()) {
    if (!events.empty()) events += ",";
    bridge::AppendEventJson(id, event, &events);
    last_seq = std::max(last_seq, event.seq());
    epoch = std::max(epoch, event.epoch());
    if (event.has_done()) status = v1::GENERATION_STATUS_DONE;
    if (event.has_failed()) status = v1::GENERATION_STATUS_FAILED;
  }
  std::string body = "{\"id\":";
  bridge::AppendJsonString(id, &body);
  body += ",\"model\":";
  bridge::AppendJsonString(collector.info().model, &body);
  absl::StrAppend(&body, ",\"status\":\"", base::ToAbsl(bridge::StatusName(status)), "\",\"last_seq\":", last_seq);
  bridge::AppendEpoch(epoch, &body);
  absl::StrAppend(&body, ",\"events\":[", events, "]");
  bridge::AppendOpenedParts(collector.info().parts, &body);
  body += "}";
  return JsonResponse(200, std::move(body));
}

}  // namespace

bridge::Awaitable<ApiResult> PollGeneration(const ApiCall* call) {
  const absl::StatusOr<PollRequest> poll = ReadPollRequest(*call->request, *call->route);
  if (!poll.ok()) co_return RespondWithError(poll.status());
  const bridge::ConnectionSet& connections = call->thread->connections;
  EventCollector collector(&call->thread->io, &call->thread->router, call->options->max_pending_bytes);
  collector.subscription().Attach(call->route->id, poll->after, call->request->principal, poll->gap_policy);
  // Without a wait, events that are in the log already are still on their way.
  const absl::Duration limit = poll->wait > absl::ZeroDuration() ? poll->wait : call->options->open_timeout;
  absl::Duration deadline = connections.now() + limit;
  bool may_have_gap = false;
  while (!IsComplete(collector, *poll)) {
    if (!may_have_gap && MayHaveGap(collector, *poll)) {
      may_have_gap = true;
      deadline = connections.now() + kGapGrace;
    }
    // The Link ends an opening that takes too long.
    const absl::Duration left = collector.opened() ? deadline - connections.now() : absl::InfiniteDuration();
    const bool connected = co_await collector.WaitFor(call->connection, left);
    if (!connected) co_return ClientGone();
    // A client that closed its side may wait for the response or have disconnected, so it gets the events so far.
    const bool over = call->connection->timed_out() || call->connection->half_closed() || connections.draining();
    if (collector.opened() && over) break;
  }
  if (!collector.opened() || (collector.ended() && !collector.status().ok() && collector.events().empty())) {
    co_return RespondWithError(collector.status());
  }
  co_return RespondWith(PollResponse(call->route->id, collector));
}

}  // namespace runnel::sse
