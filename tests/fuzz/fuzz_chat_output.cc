// Outputs of a model, with llama.cpp's parser: for any text in pieces of any size, no part is withdrawn and no text is
// lost.
#include <llama_chat.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "services/inference/engines/llama/chat_output.h"
#include "services/inference/engines/utf8.h"
#include "services/inference/generation/part_piece.h"
#include "tests/fuzz/fuzz_check.h"
#include "tests/testing/tool_template.h"

namespace {

using runnel::inference::ChatOutput;
using runnel::inference::ParsedOutput;
using runnel::inference::PartKind;

class Syntax final : public runnel::inference::OutputSyntax {
 public:
  explicit Syntax(std::shared_ptr<const llama_chat::Format> format) : format_(std::move(format)) {}

  bool Parse(const std::string& output, ParsedOutput* parsed) const override {
    llama_chat::Output found;
    if (!format_->Parse(output, &found)) return false;
    FUZZ_CHECK(found.end <= output.size() && found.call_ends.size() == found.calls.size());
    *parsed = {found.reasoning, found.text, {}, {}, found.end, found.call_ends, found.complete};
    for (const llama_chat::Call& call : found.calls) {
      parsed->calls.push_back({call.id, call.name});
      parsed->arguments.push_back(call.arguments);
    }
    return true;
  }

 private:
  const std::shared_ptr<const llama_chat::Format> format_;
};

bool IsBlank(std::string_view text) { return text.find_first_not_of(" \t\r\n\v\f") == std::string_view::npos; }

std::vector<std::shared_ptr<const Syntax>> MakeSyntaxes() {
  llama_chat::Request request;
  request.messages = {{"user", "hi", "", {}, ""}};
  request.tools = {{"f", "", R"({"type":"object","properties":{"a":{"type":"string"},"b":{}}})"}, {"fg", "", "{}"}};
  request.callable = request.tools;
  request.parallel_calls = true;
  std::vector<std::shared_ptr<const Syntax>> syntaxes;
  for (const char* source : {runnel::testing::kToolTemplate, "{{ messages[0].content }}"}) {
    const auto chat = llama_chat::CreateTemplate(nullptr, source);
    for (const auto choice : {llama_chat::Choice::kAuto, llama_chat::Choice::kRequired, llama_chat::Choice::kNone}) {
      request.choice = choice;
      syntaxes.push_back(std::make_shared<const Syntax>(chat->Apply(request).format));
    }
  }
  return syntaxes;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto syntaxes = MakeSyntaxes();
  if (size < 2) return 0;
  const std::string text = runnel::inference::ToValidUtf8({reinterpret_cast<const char*>(data) + 2, size - 2});
  ChatOutput output(syntaxes[data[0] % syntaxes.size()], 1);
  std::string plain;
  uint32_t calls = 0;
  const auto take = [&](const std::vector<ChatOutput::Piece>& pieces) {
    for (const ChatOutput::Piece& piece : pieces) {
      FUZZ_CHECK(!piece.content.empty() || piece.opening != nullptr);
      FUZZ_CHECK(runnel::inference::ToValidUtf8(piece.content) == piece.content);
      FUZZ_CHECK((piece.kind == PartKind::kToolCall) || piece.opening == nullptr);
      if (piece.kind == PartKind::kText) plain += piece.content;
      if (piece.kind != PartKind::kToolCall) continue;
      FUZZ_CHECK((piece.opening != nullptr) == (piece.call == calls) && piece.call <= calls);
      if (piece.opening == nullptr) continue;
      ++calls;
      FUZZ_CHECK(runnel::inference::IsValidCallName(piece.opening->id));
      FUZZ_CHECK(piece.opening->name == "f" || piece.opening->name == "fg");
    }
  };
  const size_t step = 1 + data[1] % 64;
  for (size_t at = 0; at < text.size();) {
    size_t end = std::min(text.size(), at + step);
    while (end < text.size() && (static_cast<uint8_t>(text[end]) & 0xC0) == 0x80) ++end;
    take(output.Add(std::string_view(text).substr(at, end - at)));
    at = end;
  }
  take(output.Finish());
  // Every marker begins with it. Blanks before the text belong to the syntax.
  if (text.find('<') == std::string::npos)
    FUZZ_CHECK(text.ends_with(plain) && IsBlank(text.substr(0, text.size() - plain.size())));
  return 0;
}
