#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/inference/engines/scripted_parts.h"
#include "services/inference/engines/scripted_position.h"
#include "services/inference/generation/engine.h"

namespace runnel::inference {

// The behaviour of a generation. The metadata key next to each field overrides it for a request. scripted.parts, in
// place of scripted.tokens, scripts other output than text: see ScriptedParts.
struct Script {
  double tokens_per_second = 30;                        // scripted.tokens_per_second, above 0 to 1e6
  absl::Duration first_token = absl::Milliseconds(50);  // scripted.first_token_ms, 0 to 600000
  uint32_t tokens = 120;                                // scripted.tokens, 0 to 1e6; max_tokens still applies
  int64_t fail_at = -1;                                 // scripted.fail_at: fails instead of this token, from 0
  int64_t stall_at = -1;                                // scripted.stall_at: sends nothing from this token on
  bool timestamps = false;  // scripted.timestamps: each token begins with the time, see StampedToken
  bool stepped = false;     // scripted.stepped: generations with the same pace have tokens at the same times
  // scripted.salt: each word has this and its index before it, see ScriptedToken. If each replica has another one, a
  // text tells which replica made each token. Empty: words only.
  std::string salt;
};

// Letters, digits, - and _, at most 32.
bool IsValidSalt(std::string_view salt);

// A request as the scripted engine runs it.
class PreparedScript final : public PreparedGeneration {
 public:
  // InvalidArgument for a request that the engine cannot run. `defaults`: for the fields that the request does not set.
  static absl::StatusOr<std::unique_ptr<PreparedScript>> Create(const GenerationRequest& request, Script defaults);

  uint32_t prompt_tokens() const override { return prompt_tokens_; }
  std::string fingerprint() const override;

  // The number of tokens of a choice that no stop string ends.
  uint32_t end() const { return std::min(script.tokens, max_tokens); }
  FinishReason finish_reason() const;

  // Token `index` of a choice, at a time of the monotonic clock.
  ScriptedPiece PieceAt(uint32_t choice, uint32_t index, absl::Duration monotonic) const;
  // One token, with its log-probabilities if they are requested and if it is text.
  Tokens TokenAt(uint32_t choice, uint32_t index, PartKind kind) const;

  Script script;
  std::optional<ScriptedParts> parts;  // absent: only text
  uint64_t seed = 0;
  uint32_t max_tokens = 0;
  uint32_t choice_count = 1;
  std::vector<std::string> stop;
  std::optional<uint32_t> top_logprobs;
  std::optional<ScriptedPosition> position;  // of a generation that is continued

 private:
  uint32_t prompt_tokens_ = 0;
};

}  // namespace runnel::inference
