#include <algorithm>
#include <exception>
#include <string>
#include <utility>
#include <vector>

#include "chat-peg-parser.h"
#include "internal.h"
#include "peg-parser.h"

namespace llama_chat {
namespace {

// Where the parts of an output end, from the syntax tree.
class Ends {
 public:
  void Visit(const common_peg_ast_node& node) {
    using Builder = common_chat_peg_builder;
    if (node.tag == Builder::CONTENT || node.tag == Builder::REASONING) {
      text_ = std::max(text_, node.end);
    } else if (node.tag == Builder::TOOL_OPEN) {
      calls_.push_back({});
    } else if (node.tag.rfind("tool-", 0) == 0 && !calls_.empty()) {
      calls_.back().end = std::max(calls_.back().end, node.end);
      calls_.back().named = calls_.back().named || node.tag == Builder::TOOL_NAME;
    }
  }

  void Fill(size_t before, Output* output) const {
    const auto without = [before](size_t end) { return end > before ? end - before : 0; };
    output->end = without(text_);
    output->call_ends.clear();
    for (const Call& call : calls_) {
      if (call.named) output->call_ends.push_back(without(call.end));
    }
    // The tree may have calls that did not become one.
    output->call_ends.resize(output->calls.size(), output->call_ends.empty() ? 0 : output->call_ends.back());
  }

 private:
  struct Call {
    size_t end = 0;
    bool named = false;
  };
  size_t text_ = 0;
  std::vector<Call> calls_;
};

class ParserFormat final : public Format {
 public:
  ParserFormat(common_peg_arena parser, common_chat_format format, std::string generation_prompt)
      : parser_(std::move(parser)), format_(format), generation_prompt_(std::move(generation_prompt)) {}

  bool Parse(const std::string& output, Output* parsed) const noexcept override {
    try {
      if (!IsShallow(output)) return false;
      common_peg_parse_context context(generation_prompt_ + output, COMMON_PEG_PARSE_FLAG_LENIENT);
      const common_peg_parse_result result = parser_.parse(context);
      if (result.fail()) return false;
      common_chat_msg message;
      Map(context.ast, result, &message);
      Ends ends;
      context.ast.visit(result, [&ends](const common_peg_ast_node& node) { ends.Visit(node); });
      parsed->complete = result.success() && result.end == context.input.size();
      parsed->reasoning = std::move(message.reasoning_content);
      parsed->text = std::move(message.content);
      parsed->calls.clear();
      for (common_chat_tool_call& call : message.tool_calls) {
        parsed->calls.push_back({std::move(call.id), std::move(call.name), std::move(call.arguments)});
      }
      ends.Fill(generation_prompt_.size(), parsed);
      return true;
    } catch (const std::exception&) {
      return false;
    }
  }

 private:
  void Map(const common_peg_ast_arena& tree, const common_peg_parse_result& result, common_chat_msg* message) const {
    switch (format_) {
      case COMMON_CHAT_FORMAT_PEG_GEMMA4:
        return common_chat_peg_gemma4_mapper(*message).from_ast(tree, result);
      case COMMON_CHAT_FORMAT_PEG_MINIMAX_M3:
        return common_chat_peg_minimax_m3_mapper(*message).from_ast(tree, result);
      default:
        return common_chat_peg_mapper(*message).from_ast(tree, result);
    }
  }

  const common_peg_arena parser_;
  const common_chat_format format_;
  const std::string generation_prompt_;
};

}  // namespace

bool IsShallow(const std::string& text) {
  size_t depth = 0;
  for (const char c : text) {
    if (c == '[' || c == '{') {
      if (++depth > kMaxOutputDepth) return false;
    } else if ((c == ']' || c == '}') && depth > 0) {
      --depth;
    }
  }
  return true;
}

std::shared_ptr<const Format> MakeFormat(common_peg_arena parser, common_chat_format format,
                                         const std::string& generation_prompt) {
  return std::make_shared<const ParserFormat>(std::move(parser), format, generation_prompt);
}

}  // namespace llama_chat
