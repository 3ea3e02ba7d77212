#include "services/inference/engines/llama/chat_output.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

namespace runnel::inference {
namespace {

// Answers with what the test has set for an output; others do not have the syntax.
class FakeSyntax final : public OutputSyntax {
 public:
  bool Parse(const std::string& output, ParsedOutput* parsed) const override {
    const auto found = parses.find(output);
    if (found == parses.end()) return false;
    *parsed = found->second;
    return true;
  }
  void Set(const std::string& output, const std::string& text, const std::string& reasoning = "") {
    ParsedOutput& parsed = parses[output];
    parsed.text = text;
    parsed.reasoning = reasoning;
    parsed.end = text.size() + reasoning.size();
    parsed.complete = parsed.end == output.size();
  }
  void SetCall(const std::string& output, const std::string& name, const std::string& arguments, bool complete) {
    ParsedOutput& parsed = parses[output];
    parsed.calls.push_back({"", name});
    parsed.arguments.push_back(arguments);
    parsed.call_ends.push_back(output.size());
    parsed.complete = complete;
  }

  std::map<std::string, ParsedOutput> parses;
};

// The pieces in one line: text as it is, reasoning in (), calls as name[id?] and their fragments in {}.
std::string Show(const std::vector<ChatOutput::Piece>& pieces) {
  std::string shown;
  for (const ChatOutput::Piece& piece : pieces) {
    if (!shown.empty()) shown += '|';
    switch (piece.kind) {
      case PartKind::kReasoning:
        shown += "(" + piece.content + ")";
        break;
      case PartKind::kToolCall:
        shown += std::to_string(piece.call) + ":" + (piece.opening == nullptr ? "" : piece.opening->name) + "<" +
                 piece.content + ">";
        break;
      default:
        shown += piece.content;
    }
  }
  return shown;
}

class ChatOutputTest : public ::testing::Test {
 protected:
  ChatOutput Make(uint64_t seed = 1) { return ChatOutput(syntax_, seed); }
  const std::shared_ptr<FakeSyntax> syntax_ = std::make_shared<FakeSyntax>();
};

TEST_F(ChatOutputTest, GivesWhatIsNew) {
  syntax_->Set("<r", "", "");
  syntax_->Set("<r>hm", "", "hm");
  syntax_->Set("<r>hm</r>so", "so", "hm");
  ChatOutput output = Make();
  EXPECT_EQ(Show(output.Add("<r")), "");
  EXPECT_EQ(Show(output.Add(">hm")), "(hm)");
  EXPECT_EQ(Show(output.Add("</r>so")), "so");
  EXPECT_FALSE(output.calls_complete());
}

TEST_F(ChatOutputTest, ACallOpensOnceItsFirstArgumentIsThere) {
  syntax_->SetCall("a", "f", "{", false);
  syntax_->SetCall("ab", "f", "{\"x\"", false);
  syntax_->SetCall("abc", "f", "{\"x\":1}", true);
  ChatOutput output = Make();
  EXPECT_EQ(Show(output.Add("a")), "");
  const auto opened = output.Add("b");
  ASSERT_EQ(Show(opened), "0:f<{\"x\">");
  EXPECT_FALSE(output.calls_complete());
  EXPECT_EQ(Show(output.Add("c")), "0:<:1}>");
  EXPECT_TRUE(output.calls_complete());
  EXPECT_EQ(Show(output.Finish()), "");
  // An id that depends on the seed only, and stays valid.
  EXPECT_EQ(opened[0].opening->id.substr(0, 5), "call_");
  ChatOutput again = Make();
  again.Add("a");
  EXPECT_EQ(again.Add("b")[0].opening->id, opened[0].opening->id);
  ChatOutput other = Make(2);
  other.Add("a");
  EXPECT_NE(other.Add("b")[0].opening->id, opened[0].opening->id);
}

TEST_F(ChatOutputTest, IdsOfTheModelAreKeptOnce) {
  syntax_->SetCall("a", "f", "{}", true);
  syntax_->SetCall("a", "g", "{}", true);
  syntax_->SetCall("a", "h", "{}", true);
  auto& calls = syntax_->parses["a"].calls;
  calls[0].id = calls[1].id = "same";
  calls[2].id = "\x01";
  ChatOutput output = Make();
  const auto pieces = output.Add("a");
  ASSERT_EQ(pieces.size(), 3u);
  EXPECT_EQ(pieces[0].opening->id, "same");
  EXPECT_EQ(pieces[1].opening->id.substr(0, 5), "call_");
  EXPECT_EQ(pieces[2].opening->id.substr(0, 5), "call_");
  EXPECT_NE(pieces[1].opening->id, pieces[2].opening->id);
}

TEST_F(ChatOutputTest, WhatCannotBeParsedIsText) {
  syntax_->Set("ab", "ab");
  ChatOutput output = Make();
  EXPECT_EQ(Show(output.Add("ab")), "ab");
  EXPECT_EQ(Show(output.Add("<cd")), "<cd");
  EXPECT_EQ(Show(output.Add("e")), "e");
  EXPECT_EQ(Show(output.Finish()), "");
}

TEST_F(ChatOutputTest, NothingIsWithdrawn) {
  syntax_->Set("a", "a");
  syntax_->Set("ab", "x");  // contradicts what was returned
  syntax_->Set("abc", "abc");
  ChatOutput output = Make();
  EXPECT_EQ(Show(output.Add("a")), "a");
  EXPECT_EQ(Show(output.Add("b")), "");
  EXPECT_EQ(Show(output.Add("c")), "bc");

  ChatOutput cut = Make();
  EXPECT_EQ(Show(cut.Add("a")), "a");
  EXPECT_EQ(Show(cut.Add("b")), "");
  EXPECT_EQ(Show(cut.Finish()), "b");
}

TEST_F(ChatOutputTest, AMarkerThatDoesNotFollowIsText) {
  syntax_->Set("a <to", "a ");
  ChatOutput output = Make();
  EXPECT_EQ(Show(output.Add("a <to")), "a ");
  EXPECT_EQ(Show(output.Finish()), "<to");

  syntax_->Set("<r>hm</", "", "hm");
  syntax_->parses["<r>hm</"].end = 5;
  ChatOutput reasoning = Make();
  EXPECT_EQ(Show(reasoning.Add("<r>hm</")), "(hm)");
  EXPECT_EQ(Show(reasoning.Finish()), "(</)");
}

TEST_F(ChatOutputTest, ACallThatWasNotOpenedBecomesText) {
  syntax_->Set("a ", "a ");
  syntax_->SetCall("a <f", "f", "{", false);
  syntax_->parses["a <f"].text = "a ";
  syntax_->parses["a <f"].end = 2;
  ChatOutput output = Make();
  EXPECT_EQ(Show(output.Add("a ")), "a ");
  EXPECT_EQ(Show(output.Add("<f")), "");
  EXPECT_EQ(Show(output.Add("?")), "<f?");
}

TEST_F(ChatOutputTest, TheRestOfACutCallIsNoText) {
  syntax_->SetCall("call", "f", "{\"x", false);
  syntax_->parses["call"].call_ends = {2};
  ChatOutput output = Make();
  EXPECT_EQ(Show(output.Add("call")), "0:f<{\"x>");
  EXPECT_EQ(Show(output.Finish()), "");
  EXPECT_FALSE(output.calls_complete());
}

}  // namespace
}  // namespace runnel::inference
