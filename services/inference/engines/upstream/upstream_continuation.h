#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "services/inference/generation/event.h"
#include "services/inference/generation/generation_request.h"
#include "services/inference/generation/log_segment.h"

namespace runnel::inference {

// How a server is asked for the rest of a generation whose log has output.
enum class UpstreamContinue {
  kNever,
  kPrompt,        // a plain prompt: /completions with the text so far behind it
  kFinalMessage,  // a chat: the text as the last message, with continue_final_message (vLLM, SGLang)
  kPrefill,       // a chat: the text as the last message, which the server continues anyway (llama-server)
  kReplay,        // the same request again: what comes is compared with the log, and dropped
};

// By the names never, prompt, final_message, prefill and replay. InvalidArgument for another one.
absl::StatusOr<UpstreamContinue> ParseUpstreamContinue(std::string_view name);

// Without it, the generation is begun again.
bool HasOutput(const LogSegment& log);

// Whether the server can be asked for the rest. All but kReplay can continue only the text of a single choice that has
// no other format, and kFinalMessage and kPrefill only chats, kPrompt only plain prompts. A log without output always.
bool CanContinue(UpstreamContinue mode, const GenerationRequest& request, const LogSegment& log);

struct UpstreamContinuation {
  // The log, with which the output is compared. Null: the output follows the log.
  std::shared_ptr<const LogSegment> replayed;
  std::string tail;  // the end of the logged text, in which a stop string may have begun
  Usage usage;       // of the log
  // Nothing is left to ask for.
  std::optional<FinishReason> ending;
};

// Makes `request` the one to send. `log` has output, and CanContinue is true.
UpstreamContinuation ContinueFromLog(UpstreamContinue mode, std::shared_ptr<const LogSegment> log,
                                     GenerationRequest* request);

}  // namespace runnel::inference
