#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "services/inference/generation/event.h"
#include "services/inference/generation/json_object_checker.h"

namespace runnel::inference {

// What is found in the beginning of an output.
struct ParsedOutput {
  std::string reasoning;
  std::string text;
  std::vector<ToolCall> calls;         // the ids may be empty
  std::vector<std::string> arguments;  // of each call
  size_t end = 0;                      // of reasoning and text in the output
  std::vector<size_t> call_ends;       // of each call, as far as it goes
  bool complete = false;               // all of the output was parsed, and nothing is missing
};

// The syntax in which a model writes reasoning and tool calls. Immutable: every method may be called on any thread.
class OutputSyntax {
 public:
  virtual ~OutputSyntax() = default;
  // Parses an output from its beginning. False if it cannot become one of this syntax.
  virtual bool Parse(const std::string& output, ParsedOutput* parsed) const = 0;
};

// Divides the output of one choice into parts while it grows. A piece that was returned is never withdrawn or changed:
// what the syntax does not determine yet is held. From where the output does not have the syntax on, it is text. Not
// thread-safe.
class ChatOutput {
 public:
  struct Piece {
    PartKind kind = PartKind::kText;
    std::string content;
    uint32_t call = 0;                  // its number
    const ToolCall* opening = nullptr;  // valid until the end
  };

  // `seed`: calls to which the model gives no id get one that depends on this and on their number.
  ChatOutput(std::shared_ptr<const OutputSyntax> syntax, uint64_t seed) : syntax_(std::move(syntax)), seed_(seed) {}

  // `text` is whole UTF-8 characters.
  std::vector<Piece> Add(std::string_view text);
  // The next Add parses the output, however long that takes.
  void ParseNext() { next_parse_ = 0; }
  // To be called at the end. Returns what was held.
  std::vector<Piece> Finish();

  // There is a call, and the arguments of every call are a JSON object.
  bool calls_complete() const;

 private:
  struct Call {
    ToolCall opening;
    size_t bytes = 0;  // of the arguments that were returned
    JsonObjectChecker checker;
  };
  void Update(bool last, std::vector<Piece>* pieces);
  bool Extends(const ParsedOutput& now) const;
  void AppendCalls(const ParsedOutput& now, bool last, std::vector<Piece>* pieces);
  std::string IdFor(const std::string& given) const;
  void GiveUp(std::vector<Piece>* pieces);

  const std::shared_ptr<const OutputSyntax> syntax_;
  const uint64_t seed_;
  std::string output_;
  ParsedOutput returned_;   // only calls that were opened
  size_t represented_ = 0;  // bytes of the output that were returned, or are markers between what was returned
  std::deque<Call> calls_;  // that were opened
  size_t next_parse_ = 0;   // the size of the output at which to parse it again
  bool plain_ = false;      // the rest is text
};

}  // namespace runnel::inference
