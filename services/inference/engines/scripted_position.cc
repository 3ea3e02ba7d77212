#include "services/inference/engines/scripted_position.h"

#include <algorithm>
#include <utility>

#include "services/base/status_macros.h"
#include "services/inference/engines/scripted_script.h"
#include "services/inference/engines/scripted_words.h"
#include "services/inference/generation/wake_set.h"

namespace runnel::inference {
namespace {

using Piece = LoggedOutput::Piece;

absl::Status Differs() { return absl::FailedPreconditionError("the log was not written by this script"); }

bool HasReasoning(const LoggedOutput& logged) {
  return std::any_of(logged.pieces.begin(), logged.pieces.end(),
                     [](const Piece& piece) { return piece.kind == PartKind::kReasoning; });
}

bool IsReasoning(const PreparedScript& prepared, uint32_t choice, uint32_t index) {
  return prepared.parts.has_value() && prepared.parts->At(prepared.seed, choice, index).kind == PartKind::kReasoning;
}

// Whether the piece is token `index`, whatever its time and its salt.
bool IsToken(const PreparedScript& prepared, uint32_t choice, uint32_t index, const Piece& piece) {
  ScriptedPiece token;
  if (prepared.parts.has_value()) {
    token = prepared.parts->At(prepared.seed, choice, index);
  } else {
    token.content = ScriptedToken(prepared.seed, choice, index);
  }
  const bool opens = token.opening.has_value();
  return piece.kind == token.kind && PlainToken(piece.content) == token.content &&
         (piece.kind != PartKind::kToolCall || piece.call == token.call) && opens == (piece.opening != nullptr) &&
         (!opens || *token.opening == *piece.opening);
}

// Without stop strings, each piece is a token. Reasoning that is not delivered is not in the log.
absl::StatusOr<uint32_t> CountTokens(const PreparedScript& prepared, uint32_t choice, const LoggedOutput& logged,
                                     uint32_t* hidden) {
  const bool has_reasoning = HasReasoning(logged);
  uint32_t next = 0;
  for (const Piece& piece : logged.pieces) {
    for (; !has_reasoning && next < prepared.end() && IsReasoning(prepared, choice, next); ++next) ++*hidden;
    if (next >= prepared.end() || !IsToken(prepared, choice, next, piece)) return Differs();
    ++next;
  }
  return next;
}

// Makes the tokens again until the log has no more of them.
absl::Status Replay(const PreparedScript& prepared, uint32_t choice, const LoggedOutput& logged,
                    ScriptedPosition* position) {
  ReplaySink sink(&logged);
  StoppableParts& output = position->stoppable.emplace_back(choice, prepared.stop, &sink);
  uint32_t& next = position->choices[choice].next;
  WakeSet wake;
  for (; !sink.complete() && !sink.differs() && next < prepared.end() && !output.stopped(); ++next) {
    const ScriptedPiece piece = prepared.PieceAt(choice, next, absl::ZeroDuration());
    const ToolCall* const opening = piece.opening.has_value() ? &*piece.opening : nullptr;
    output.Append({piece.kind, piece.content, piece.call, opening}, 1, &wake);
  }
  // The text that was held is at the end.
  if (!sink.complete() && !sink.differs()) output.Finish(&wake);
  position->choices[choice].rest = sink.TakeRest();
  output.SendTo(nullptr);
  return sink.complete() && !sink.differs() ? absl::OkStatus() : Differs();
}

// Skips tokens that are not in the log and were counted: the engine makes them in turn.
void SkipHidden(const PreparedScript& prepared, uint32_t hidden, ScriptedPosition* position) {
  for (uint32_t index = 0; hidden > 0 && index < prepared.end(); ++index) {
    for (uint32_t choice = 0; hidden > 0 && choice < prepared.choice_count; ++choice) {
      uint32_t& next = position->choices[choice].next;
      if (next != index || !IsReasoning(prepared, choice, index)) continue;
      ++next;
      --hidden;
    }
  }
}

}  // namespace

absl::StatusOr<ScriptedPosition> FindPosition(const PreparedScript& prepared, const LogSegment& log) {
  ASSIGN_OR_RETURN(const std::vector<LoggedOutput> outputs, OutputsOf(log, prepared.choice_count));
  ScriptedPosition position;
  position.choices.resize(outputs.size());
  // Their memory does not move: each is moved once, with all others.
  if (!prepared.stop.empty()) position.stoppable.reserve(outputs.size());
  uint32_t hidden = 0;
  for (uint32_t choice = 0; choice < outputs.size(); ++choice) {
    position.choices[choice].ended = outputs[choice].ended();
    if (prepared.stop.empty()) {
      ASSIGN_OR_RETURN(position.choices[choice].next, CountTokens(prepared, choice, outputs[choice], &hidden));
    } else {
      RETURN_IF_ERROR(Replay(prepared, choice, outputs[choice], &position));
    }
  }
  const bool delivered = std::any_of(outputs.begin(), outputs.end(), HasReasoning);
  if (prepared.stop.empty() && !delivered && log.usage.has_value() && log.usage->reasoning_tokens > hidden) {
    SkipHidden(prepared, log.usage->reasoning_tokens - hidden, &position);
  }
  return position;
}

}  // namespace runnel::inference
