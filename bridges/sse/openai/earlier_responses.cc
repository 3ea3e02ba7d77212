#include "bridges/sse/openai/earlier_responses.h"

#include <set>
#include <string>
#include <utility>

#include "bridges/openai/responses_history.h"
#include "bridges/server/inference_client.h"
#include "bridges/sse/native/generation_snapshot.h"

namespace runnel::sse {
namespace {

using bridge::Awaitable;

// A text of at most this size comes with the first piece of the input.
constexpr uint64_t kOneCallBytes = 256 << 10;

// The log of a response that another principal owns, that was purged, or whose replica is gone.
bool IsMissing(const absl::Status& status) { return absl::IsNotFound(status); }

Awaitable<absl::Status> ResolveReferences(const ApiCall* call, openai::ResponsesRequest* body) {
  std::set<std::string> generations;
  for (const openai::ItemReference& reference : body->references) generations.insert(reference.name.generation_id);
  for (const std::string& id : generations) {
    const absl::StatusOr<v1::Generation> generation = co_await ReadGeneration(call, id);
    for (const openai::ItemReference& reference : body->references) {
      if (reference.name.generation_id != id) continue;
      if (IsMissing(generation.status())) co_return openai::MissingItem(reference.path, reference.id);
      if (!generation.ok()) co_return generation.status();
      absl::Status resolved = openai::ResolveReference(reference, *generation, &body->request);
      if (!resolved.ok()) co_return resolved;
    }
    absl::Status checked = openai::CheckMessageBytes(body->request, call->options->max_body_bytes);
    if (!checked.ok()) co_return checked;
  }
  co_return absl::OkStatus();
}

// Reads the response that is next, and adds it.
Awaitable<absl::Status> AddNext(const ApiCall* call, openai::EarlierConversation* conversation) {
  const std::string id = conversation->next();
  v1::Generation generation;
  std::string input;
  uint64_t input_bytes = 0;
  do {
    const bool first = input.empty();
    absl::StatusOr<v1::GetGenerationResponse> piece = co_await call->thread->client->GetWithInput(
        call->thread, id, call->request->principal, first ? kOneCallBytes : 0, input.size());
    if (IsMissing(piece.status())) co_return conversation->Missing();
    if (!piece.ok()) co_return piece.status();
    input_bytes = piece->input_bytes();
    if (input_bytes > call->options->max_body_bytes) co_return conversation->TooLong();
    // A part of what was kept is not a conversation.
    if (piece->input().empty()) co_return conversation->Missing();
    input += piece->input();
    if (first) generation = std::move(*piece->mutable_generation());
  } while (input.size() < input_bytes);
  if (generation.text_omitted()) {
    absl::StatusOr<v1::Generation> whole = co_await ReadGeneration(call, id);
    if (IsMissing(whole.status())) co_return conversation->Missing();
    if (!whole.ok()) co_return whole.status();
    generation = *std::move(whole);
  }
  co_return conversation->Add(generation, input);
}

}  // namespace

Awaitable<absl::Status> AddEarlierResponses(const ApiCall* call, openai::ResponsesRequest* body) {
  if (!body->references.empty()) {
    absl::Status resolved = co_await ResolveReferences(call, body);
    if (resolved.ok()) resolved = openai::FinishInput(body);
    if (!resolved.ok()) co_return resolved;
  }
  openai::EarlierConversation earlier(body, call->options->max_body_bytes);
  while (!earlier.next().empty()) {
    absl::Status added = co_await AddNext(call, &earlier);
    if (!added.ok()) co_return added;
  }
  earlier.Finish();
  co_return absl::OkStatus();
}

}  // namespace runnel::sse
