#pragma once

#include <string>
#include <string_view>

#include "runnel/v1/inference.pb.h"

// Messages as compact JSON on one line, the same bytes in both bridges. Written by hand for speed: AppendEventJson runs
// for each token of each reader. All functions append to `out`.
namespace runnel::bridge {

// `text`, quoted and escaped. It must be valid UTF-8, as every proto3 string is.
void AppendJsonString(std::string_view text, std::string* out);

// The event of generation `gen`; event.generation_id is ignored. `ms` is elapsed_us in whole milliseconds.
//   {"type":"started","gen","seq","model","created_at","prompt_tokens","ms"}
//   {"type":"delta","gen","first_seq" only if merged,"seq","choice","text","tokens","ms"}
//   {"type":"done","gen","seq","final":true,"events","choices":[{"index","finish_reason","text_bytes","crc32"}],
//    "usage":{"prompt_tokens","completion_tokens","total_tokens",
//    "cached_prompt_tokens","reasoning_tokens" only if not 0},"ms"}
//   {"type":"failed","gen","seq","final":true,"error":{"code","message","retryable",
//    "server_error":{"status","type","code","param","retry_after_seconds"} only if given},"ms"}
//   {"type":"gap","gen","seq","requested_after","first_available","reason",
//    "snapshot":{"seq","choices":[{"index","text"}]}}
void AppendEventJson(std::string_view gen, const v1::GenerationEvent& event, std::string* out);

// `started`, `delta`, `done`, `failed` or `gap`; empty for an event without a payload.
std::string_view EventName(const v1::GenerationEvent& event);

// `queued`, `running`, `done` or `failed`.
std::string_view StatusName(v1::GenerationStatus status);

// `stop`, `length`, `cancelled` or `content_filter`; empty for none.
std::string_view FinishReasonName(v1::FinishReason reason);

// {"stage":"queued","queue_position"}, {"stage":"prefill","prefill_share"} or {"stage":"decoding"}; the second key
// only if its value is known.
void AppendProgressJson(const v1::Progress& progress, std::string* out);

// {"id","model","status","last_seq","choices":[{"index","text","finish_reason"}],"usage":{..},"created_at",
//  "expires_at"}, and "error" as in `failed` if it has failed. finish_reason and expires_at may be null.
void AppendGenerationJson(const v1::Generation& generation, std::string* out);

// {"id","object":"model","created","owned_by":"runnel","engine","context_length"}, the last key only if it is known
void AppendModelJson(const v1::Model& model, std::string* out);

}  // namespace runnel::bridge
