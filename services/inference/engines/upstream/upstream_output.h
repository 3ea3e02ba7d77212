#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "services/inference/engines/stop_string_filter.h"
#include "services/inference/engines/upstream/upstream_calls.h"
#include "services/inference/engines/upstream/upstream_chunk.h"
#include "services/inference/engines/upstream/upstream_replay.h"
#include "services/inference/engines/upstream/upstream_set.h"
#include "services/inference/engines/upstream/upstream_stream_parser.h"
#include "services/inference/engines/utf8.h"
#include "services/inference/generation/engine.h"

namespace runnel::inference {

// Reads the stream of one response into a sink. Only a finish reason for every choice is success: not the end of the
// stream, and not [DONE] alone. Once all choices have one, the last EndChoice waits for the usage with the prompt's
// size, or else for [DONE] or the end of the stream. Not thread-safe: owned by the one thread that reads the stream.
//
// Reasoning, refusals and tool calls become parts. Output that has no form here ends the generation with
// unsupported_output, so that no part of a successful output is missing.
//
// Each append reports the tokens of its text as far as they are known then: a fragment is one token, unless it has
// log-probabilities, one for each of its tokens, or the server keeps a running count for a single choice. The usage at
// the end is that of the server. If it reports none, or did not see the end, it is the count made here: after a cancel,
// and after a stop string or a limit that the server ignored.
class UpstreamOutput {
 public:
  struct Options {
    UpstreamStreamParser::Limits limits;
    uint64_t max_text_bytes = uint64_t{16} << 20;  // over all choices
    std::string secret;                            // must not appear in a message
    // A choice ends before the first of these, also if the server ignores them. Valid UTF-8, not empty.
    std::vector<std::string> stop;
    uint32_t max_tokens = 0;  // of each choice, as counted here, for a server that got no limit; 0: none
    // Of a generation that is continued, if the output follows the log: what the log counts, and the end of its text,
    // in which a stop string may have begun.
    std::optional<Usage> logged_usage;
    std::string logged_tail;
    // Of one whose output is made again: the sink. A difference fails it with generation_lost.
    UpstreamReplay* replay = nullptr;
    // A failure before the first call of the sink is kept and not reported to the sink: another upstream may succeed.
    bool keep_first_failure = false;
  };
  // `sink` must outlive it.
  UpstreamOutput(uint32_t choice_count, const Options& options, EventSink* sink);

  // The next bytes of the stream. Readers are added to `wake`, which the caller flushes. Ignored after the end.
  void Add(std::string_view bytes, WakeSet* wake);

  // The stream has ended, for whatever reason: done if all choices have finished, else `cut`. Ignored after the end.
  void Finish(Failed cut, WakeSet* wake);

  // As Finish, for a generation that was cancelled.
  void Cancel(WakeSet* wake);

  // Every choice has its finish reason; only the usage may be missing.
  bool complete() const { return open_choices_ == 0; }
  // It has ended although the server would send more: close the request.
  bool cut_short() const { return cut_short_ && ended(); }
  // The sink was called, so another upstream can no longer be tried.
  bool reported() const { return reported_; }
  // What the stream says about the upstream, once failed().
  UpstreamVerdict verdict() const { return verdict_; }
  // With keep_first_failure, if it failed and reported() is false.
  const std::optional<Failed>& kept_failure() const { return kept_failure_; }
  // Grows with each delta, also one without text, and each finish reason.
  uint64_t progress() const { return progress_; }
  // The sink has had its last call, or the failure is kept.
  bool ended() const { return !outcome_.empty(); }
  bool failed() const { return ended() && outcome_ != "done" && outcome_ != "cancelled"; }
  // done, cancelled or the code of the failure; empty before the end.
  const std::string& outcome() const { return outcome_; }

 private:
  struct Choice {
    UpstreamFragment::Kind kind = UpstreamFragment::Kind::kText;  // of the last output
    Utf8Joiner joiner;                                            // of that, unless it is a call
    UpstreamCalls calls;
    std::optional<StopStringFilter> stops;  // if there are stop strings
    size_t shown_bytes = 0;                 // held by it, but in the log already
    uint32_t tokens = 0;
    uint32_t pending_tokens = 0;  // of text that is held
    std::vector<TokenLogprob> pending_logprobs;
    bool finished = false;
    bool cut_short = false;  // finished here, not by the server
  };

  // False: the rest of the stream is ignored.
  bool TakeEvent(const UpstreamStreamParser::Event& event, WakeSet* wake);
  void TakeChunk(const UpstreamChunk& chunk, WakeSet* wake);
  void TakeFragment(const UpstreamFragment& fragment, const std::optional<Usage>& usage, WakeSet* wake);
  // Output of any kind.
  void TakeOutput(const UpstreamFragment& fragment, uint32_t tokens, WakeSet* wake);
  void TakeCall(const UpstreamFragment& fragment, WakeSet* wake);
  bool FailByCalls(UpstreamCalls::Error error, WakeSet* wake);
  // Appends what is held before output of another kind, or the end.
  void FlushKind(uint32_t index, WakeSet* wake);
  // `text` is whole characters of the choice's kind.
  void AppendOutput(uint32_t index, const std::string& text, WakeSet* wake);
  void AppendPart(uint32_t index, const PartPiece& piece, WakeSet* wake);
  // `text` is whole characters, from which the stop strings are not removed yet.
  void AppendText(uint32_t index, const std::string& text, WakeSet* wake);
  void AppendCertain(uint32_t index, std::string_view text, WakeSet* wake);
  void FinishChoice(uint32_t index, FinishReason reason, WakeSet* wake);
  void CutShort(uint32_t index, FinishReason reason, WakeSet* wake);
  void EndChoice(uint32_t index, FinishReason reason, WakeSet* wake);
  uint32_t CountTokens(const UpstreamFragment& fragment, const std::optional<Usage>& usage);
  void ReportUsage(bool by_server);
  void NoteReported() { reported_ = reported_ || options_.replay == nullptr || options_.replay->passed_on(); }
  // Fails if the output that is made again is not the logged one.
  void CheckReplay(bool same, WakeSet* wake);
  // False if the output is too long and has failed.
  bool AddBytes(size_t bytes, WakeSet* wake);
  void EndDone(WakeSet* wake);
  void FailByError(const UpstreamError& error, WakeSet* wake);
  void Fail(Failed failed, UpstreamVerdict verdict, WakeSet* wake);

  const Options options_;
  EventSink* const sink_;
  UpstreamStreamParser parser_;
  std::vector<Choice> choices_;
  uint32_t open_choices_;
  uint32_t counted_tokens_ = 0;
  uint32_t counted_reasoning_ = 0;  // of these
  bool cut_short_ = false;          // a choice was
  uint64_t text_bytes_ = 0;
  std::string response_id_;
  std::optional<Usage> usage_;
  uint32_t last_choice_ = 0;  // whose EndChoice waits
  FinishReason last_reason_ = FinishReason::kNone;
  std::string outcome_;
  UpstreamVerdict verdict_ = UpstreamVerdict::kUnknown;
  std::optional<Failed> kept_failure_;
  bool reported_ = false;
  uint64_t progress_ = 0;
};

}  // namespace runnel::inference
