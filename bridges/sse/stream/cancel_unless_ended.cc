#include "bridges/sse/stream/cancel_unless_ended.h"

#include "bridges/server/inference_client.h"

namespace runnel::sse {

void CancelUnlessEnded(bridge::IoThread* thread, const bridge::Subscription& subscription) {
  if (subscription.terminal_seen() || subscription.generation_id().empty()) return;
  thread->client->CancelGeneration(thread, subscription.generation_id(), subscription.principal(),
                                   [](const absl::StatusOr<v1::CancelGenerationResponse>&) {});
}

}  // namespace runnel::sse
