#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "bridges/wire/json_text.h"
#include "runnel/v1/inference.pb.h"

// Messages as compact JSON on one line, the same bytes in both bridges. Written by hand for speed: AppendEventJson runs
// for each token of each reader. All functions append to `out`.
namespace runnel::bridge {

// The event of generation `gen`; event.generation_id is ignored. `ms` is elapsed_us in whole milliseconds. After a
// takeover, "epoch" follows "seq".
//   {"type":"started","gen","seq","model","created_at","prompt_tokens","ms"}
//   {"type":"delta","gen","first_seq" only if merged,"seq","choice","text","tokens","ms"}; for "part", "kind",
//   "content",
//    "id" and "name", see AppendDeltaOutput
//   {"type":"done","gen","seq","final":true,"events",
//    "choices":[{"index","finish_reason","text_bytes","crc32","parts" if not a single text part}],
//    "usage":{"prompt_tokens","completion_tokens","total_tokens",
//    "cached_prompt_tokens","reasoning_tokens" only if not 0},"ms"}
//   {"type":"failed","gen","seq","final":true,"error":{"code","message","retryable",
//    "server_error":{"status","type","code","param","retry_after_seconds"} only if given},"ms"}
//   {"type":"gap","gen","seq","requested_after","first_available",
//    "reason":"after_beyond_end" or "tail_lost","snapshot":{"seq","choices":[{"index","text","parts" if not a single
//    text part}]}}
void AppendEventJson(std::string_view gen, const v1::GenerationEvent& event, std::string* out);

// ,"epoch":N if the epoch is not 0.
void AppendEpoch(uint32_t epoch, std::string* out);

// `started`, `delta`, `done`, `failed` or `gap`; empty for an event without a payload.
std::string_view EventName(const v1::GenerationEvent& event);

// `queued`, `running`, `done` or `failed`.
std::string_view StatusName(v1::GenerationStatus status);

// `stop`, `length`, `cancelled`, `content_filter` or `tool_calls`; empty for none.
std::string_view FinishReasonName(v1::FinishReason reason);

// {"stage":"queued","queue_position"}, {"stage":"prefill","prefill_share"} or {"stage":"decoding"}; the second key
// only if its value is known.
void AppendProgressJson(const v1::Progress& progress, std::string* out);

// {"id","model","status","last_seq","epoch" only if not 0,"choices":[{"index","text","finish_reason","parts" if not a
// single text part}],
//  "usage":{..},"created_at","expires_at"}, and "error" as in `failed` if it has failed. finish_reason and expires_at
//  may
// be null. A tool call in `parts` is `complete` as in `done`, and false before that.
void AppendGenerationJson(const v1::Generation& generation, std::string* out);

// {"id","object":"model","created","owned_by":"runnel","engine","context_length"}, the last key only if it is known
void AppendModelJson(const v1::Model& model, std::string* out);

}  // namespace runnel::bridge
