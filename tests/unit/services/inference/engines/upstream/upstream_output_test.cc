#include "services/inference/engines/upstream/upstream_output.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/inference/engines/upstream/upstream_failure.h"
#include "services/inference/generation/wake_set.h"
#include "tests/testing/fake_openai_server.h"
#include "tests/unit/services/inference/engines/upstream/fake_sink.h"

namespace runnel::inference {
namespace {

using ::runnel::testing::FakeSink;
using Fake = ::runnel::testing::FakeOpenAiServer;

const char kCut[] = "; failed engine_unavailable retry: cut";

std::string Event(const std::string& data) { return "data: " + data + "\n\n"; }

// The outcome of a stream that ends after `bytes`.
std::string Story(const std::string& bytes, uint32_t choices = 1, const UpstreamOutput::Options& options = {}) {
  FakeSink sink(choices);
  WakeSet wake;
  UpstreamOutput output(choices, options, &sink);
  output.Add(bytes, &wake);
  output.Finish(Unavailable("cut"), &wake);
  EXPECT_TRUE(output.ended());
  return sink.Story();
}

const std::string kHello = Fake::ChatDelta("") + Fake::ChatDelta("Hel") + Fake::ChatDelta("lo");

TEST(UpstreamOutput, LogprobsGoWithTheTextThatTheyAreOf) {
  FakeSink sink(1);
  WakeSet wake;
  UpstreamOutput output(1, {}, &sink);
  const auto event = [](const std::string& content, const std::string& token) {
    return Event(R"({"choices":[{"delta":{"content":")" + content + R"("},"logprobs":{"content":[)" + token + "]}}]}");
  };
  // A character in two tokens, of which the first has no text.
  output.Add(event("", R"({"token":"?","logprob":-1,"bytes":[226,130]})"), &wake);
  EXPECT_EQ(sink.logprobs().size(), 0u);
  output.Add(event("\u20AC", R"({"token":"?","logprob":-2,"bytes":[172]})"), &wake);
  output.Add(Fake::ChatFinish("stop") + Fake::DoneEvent(), &wake);
  EXPECT_EQ(sink.Story(), "\u20AC/2 stop; prompt 0");
  EXPECT_EQ(sink.logprobs(), (std::vector<TokenLogprob>{{"\xE2\x82", -1, {}}, {"\xAC", -2, {}}}));
}

TEST(UpstreamOutput, LogprobsCountTowardsTheLongestAnswer) {
  UpstreamOutput::Options options;
  options.max_text_bytes = 10'000;
  std::string endless;
  for (int i = 0; i < 500; ++i) {
    endless += Event(R"({"choices":[{"delta":{"content":""},"logprobs":{"content":[{"token":"x","logprob":-1}]}}]})");
  }
  EXPECT_EQ(Story(endless, 1, options),
            "/0 -; prompt 0; failed engine_failed !retry: the upstream's output is longer than 10000 bytes");
}

TEST(UpstreamOutput, KeepsAFailureBeforeAnythingWasSaid) {
  UpstreamOutput::Options options;
  options.keep_first_failure = true;
  FakeSink sink(1);
  WakeSet wake;
  UpstreamOutput output(1, options, &sink);
  output.Add(Fake::ChatDelta("") + Event("{nonsense"), &wake);
  EXPECT_TRUE(output.failed());
  EXPECT_FALSE(output.reported());
  EXPECT_EQ(output.verdict(), UpstreamVerdict::kFaulty);
  ASSERT_TRUE(output.kept_failure().has_value());
  EXPECT_EQ(output.kept_failure()->code, "engine_failed");
  EXPECT_EQ(sink.Story(), "/0 -; prompt 0; open");
}

TEST(UpstreamOutput, EveryWayAStreamMayEnd) {
  const std::string stop = Fake::ChatFinish("stop");
  const std::string usage = Fake::UsageChunk(9, 2);
  const struct {
    const char* what;
    std::string bytes;
    std::string story;
  } rows[] = {
      {"as it should", kHello + stop + usage + Fake::DoneEvent(), "Hello/2 stop; prompt 9"},
      {"without usage", kHello + stop + Fake::DoneEvent(), "Hello/2 stop; prompt 0"},
      {"without [DONE]", kHello + stop, "Hello/2 stop; prompt 0"},
      {"usage first", usage + kHello + stop, "Hello/2 stop; prompt 9"},
      {"finished in the last delta", Event(R"({"choices":[{"delta":{"content":"a"},"finish_reason":"length"}]})"),
       "a/1 length; prompt 0"},
      {"no text at all", stop + Fake::DoneEvent(), "/0 stop; prompt 0"},
      {"text after the finish", kHello + stop + Fake::ChatDelta("more") + Fake::DoneEvent(),
       "Hello/2 -; prompt 0; failed engine_failed !retry: the upstream sent output of a choice after its end"},
      {"an empty delta after the finish", kHello + stop + Fake::ChatDelta("") + Fake::DoneEvent(),
       "Hello/2 stop; prompt 0"},
      {"two finishes", kHello + stop + Fake::ChatFinish("length"), "Hello/2 stop; prompt 0"},
      {"rubbish after the finish", kHello + stop + Event("{nonsense") + usage, "Hello/2 stop; prompt 9"},
      {"an error after the finish", kHello + stop + Event(R"({"error":"late"})") + usage, "Hello/2 stop; prompt 9"},
      {"named error after the finish", kHello + stop + "error: {}\n\n" + usage, "Hello/2 stop; prompt 9"},
      {"anything after [DONE]", stop + Fake::DoneEvent() + Event("{nonsense"), "/0 stop; prompt 0"},
      {"cut at once", "", std::string("/0 -; prompt 0") + kCut},
      {"cut in mid-stream", kHello, std::string("Hello/2 -; prompt 0") + kCut},
      {"cut within the finish", kHello + stop.substr(0, stop.size() - 1), std::string("Hello/2 -; prompt 0") + kCut},
      {"[DONE] without a finish", kHello + Fake::DoneEvent(),
       "Hello/2 -; prompt 0; failed engine_unavailable retry: "
       "the upstream ended the stream before every choice had finished"},
      {"[DONE] that is none", kHello + Event("[DONE] ") + stop,
       "Hello/2 -; prompt 0; failed engine_unavailable retry: "
       "the upstream ended the stream before every choice had finished"},
      {"no JSON", kHello + Event("{nonsense"),
       "Hello/2 -; prompt 0; failed engine_failed !retry: the upstream sent an event that is not a JSON object"},
      {"an error", kHello + Event(R"({"error":{"message":"out of memory","code":null}})") + stop,
       "Hello/2 -; prompt 0; failed engine_failed !retry: the upstream reported an error: out of memory"},
      {"an error with a status", kHello + Event(R"({"error":{"message":"busy","code":503}})"),
       "Hello/2 -; prompt 0; failed engine_unavailable retry: the upstream is busy (HTTP 503): busy"},
      {"an event named error", kHello + "event: error\ndata: {\"message\":\"m\"}\n\n",
       "Hello/2 -; prompt 0; failed engine_failed !retry: the upstream reported an error: m"},
      {"llama-server's error", kHello + "error: {\"code\":500,\"message\":\"m\",\"type\":\"server_error\"}\n\n",
       "Hello/2 -; prompt 0; failed engine_failed !retry: the upstream rejected the request (HTTP 500): m"},
      {"aborted", kHello + Fake::ChatFinish("abort"),
       "Hello/2 -; prompt 0; failed engine_failed retry: the upstream aborted the generation"},
      {"reasoning", Event(R"({"choices":[{"delta":{"reasoning_content":"hm"}}]})") + kHello + stop,
       "think(hm) Hello/3 stop; prompt 0"},
      {"another choice", kHello + Fake::ChatDelta("x", 7) + stop,
       "Hello/2 -; prompt 0; failed engine_failed !retry: the upstream sent output of a choice that was not requested"},
      {"another choice without text", Fake::ChatDelta("", 7) + kHello + Fake::ChatFinish("stop", 1) + stop,
       "Hello/2 stop; prompt 0"},
      {"content in parts", Event(R"({"choices":[{"delta":{"content":[{"type":"text","text":"a"}]}}]})") + stop,
       "a/1 stop; prompt 0"},
      {"a refusal", Event(R"({"choices":[{"delta":{"refusal":"No."}}]})") + stop, "refuse(No.) /1 stop; prompt 0"},
      {"audio", kHello + Event(R"({"choices":[{"delta":{"audio":{"data":"AA=="}}}]})") + stop,
       "Hello/2 -; prompt 0; failed unsupported_output !retry: the upstream sent output that is not supported: audio"},
      {"the finish of a tool call without a call", kHello + Fake::ChatFinish("tool_calls"),
       "Hello/2 tool_calls; prompt 0"},
      {"a part with a strange name", Event("{\"choices\":[{\"delta\":{\"content\":[{\"type\":\"a\\n\xFF\"}]}}]}"),
       "/0 -; prompt 0; failed unsupported_output !retry: the upstream sent output that is not supported: a "
       "content part of type 'a \xEF\xBF\xBD'"},
      {"heartbeats", ": hb\n\n" + kHello + ": OPENROUTER PROCESSING\n" + stop, "Hello/2 stop; prompt 0"},
      {"empty data", kHello + "data:\n\ndata: \n\n" + stop, "Hello/2 stop; prompt 0"},
      {"completions", Fake::TextDelta("a") + Fake::TextDelta("b") + Event(R"({"choices":[{"finish_reason":"stop"}]})"),
       "ab/2 stop; prompt 0"},
  };
  for (const auto& row : rows) EXPECT_EQ(Story(row.bytes), row.story) << row.what;
}

TEST(UpstreamOutput, IsTheSameWhereverTheBytesAreCut) {
  const std::string bytes = Fake::ChatDelta("a\xE6\x9D\xB1", 0) + ": hb\n\n" + Fake::ChatDelta("b", 1) +
                            Event("{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\xF0\x9F\"}}]}") +
                            Event("{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\x8C\x8A\"}}]}") +
                            Fake::ChatFinish("stop", 0) + Fake::ChatFinish("length", 1) + Fake::UsageChunk(3, 4) +
                            Fake::DoneEvent();
  for (size_t cut = 0; cut <= bytes.size(); ++cut) {
    FakeSink sink(2);
    WakeSet wake;
    UpstreamOutput output(2, {}, &sink);
    output.Add(std::string_view(bytes).substr(0, cut), &wake);
    output.Add(std::string_view(bytes).substr(cut), &wake);
    ASSERT_EQ(sink.Story(), "a\xE6\x9D\xB1\xF0\x9F\x8C\x8A/3 stop; b/1 length; prompt 3") << "cut at " << cut;
    EXPECT_EQ(output.outcome(), "done");
  }
}

TEST(UpstreamOutput, EveryPrefixOfAStreamIsAFailureUntilEveryChoiceHasFinished) {
  const std::string before =
      Fake::ChatDelta("a", 0) + Fake::ChatFinish("stop", 0) + Fake::ChatDelta("b", 1) + Fake::ChatFinish("stop", 1);
  const std::string bytes = before + Fake::UsageChunk(3, 2) + Fake::DoneEvent();
  for (size_t end = 0; end <= bytes.size(); ++end) {
    const bool failed = Story(bytes.substr(0, end), 2).find("failed") != std::string::npos;
    EXPECT_EQ(failed, end < before.size()) << "ends at " << end;
  }
}

TEST(UpstreamOutput, EndsAChoiceAtOnceAndTheLastWithTheUsage) {
  FakeSink sink(2);
  WakeSet wake;
  UpstreamOutput output(2, {}, &sink);
  output.Add(Fake::ChatFinish("stop", 1), &wake);
  EXPECT_EQ(sink.Story(), "/0 -; /0 stop; prompt 0; open");
  output.Add(Fake::ChatFinish("stop", 0), &wake);
  EXPECT_TRUE(output.complete());
  EXPECT_EQ(sink.Story(), "/0 -; /0 stop; prompt 0; open");
  output.Add(Fake::UsageChunk(5, 0), &wake);
  EXPECT_EQ(sink.Story(), "/0 stop; /0 stop; prompt 5");
  EXPECT_TRUE(output.ended());
  EXPECT_FALSE(output.failed());
}

TEST(UpstreamOutput, JoinsCharactersThatServersCutAndCountsTheirTokens) {
  const auto delta = [](const std::string& raw) {
    return Event("{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"" + raw + "\"}}]}");
  };
  const std::string stop = Fake::ChatFinish("stop");
  EXPECT_EQ(Story(delta("\xE6") + delta("\x9D") + delta("\xB1!") + stop), "\xE6\x9D\xB1!/3 stop; prompt 0");
  EXPECT_EQ(Story(delta("\\ud83c") + delta("\\udf0a") + stop), "\xF0\x9F\x8C\x8A/2 stop; prompt 0");
  EXPECT_EQ(Story(delta("a\xE6") + stop), "a\xEF\xBF\xBD/1 stop; prompt 0");
  EXPECT_EQ(Story(delta("\xE6") + stop), "\xEF\xBF\xBD/1 stop; prompt 0");
  EXPECT_EQ(Story(delta("\xFF\xFE") + stop), "\xEF\xBF\xBD\xEF\xBF\xBD/1 stop; prompt 0");
}

TEST(UpstreamOutput, CountsTokensByARunningUsageIfThereIsOne) {
  const auto delta = [](const std::string& text, int completion_tokens) {
    return Event("{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"" + text +
                 "\"}}],\"usage\":{\"prompt_tokens\":4,\"completion_tokens\":" + std::to_string(completion_tokens) +
                 "}}");
  };
  EXPECT_EQ(Story(delta("a", 1) + delta("b", 5) + delta("c", 5) + Fake::ChatFinish("stop")),
            "abc/6 stop; prompt 4 output 5");
}

TEST(UpstreamOutput, ReportsTheUsageOfTheServer) {
  const auto usage_of = [](const std::string& bytes, bool cancelled, uint32_t choices = 1) {
    FakeSink sink(choices);
    WakeSet wake;
    UpstreamOutput output(choices, {}, &sink);
    output.Add(bytes, &wake);
    cancelled ? output.Cancel(&wake) : output.Finish(Unavailable("cut"), &wake);
    EXPECT_TRUE(output.ended());
    const Usage usage = sink.usage();
    return absl::StrCat(usage.prompt_tokens, " ", usage.cached_prompt_tokens, "; ", usage.completion_tokens, " ",
                        usage.reasoning_tokens);
  };
  const std::string reasoning = Event(R"({"choices":[{"delta":{"reasoning_content":"hm"}}]})");
  const std::string usage = R"("usage":{"prompt_tokens":9,"completion_tokens":30,)"
                            R"("prompt_tokens_details":{"cached_tokens":8},)"
                            R"("completion_tokens_details":{"reasoning_tokens":20}})";
  const std::string alone = Event(R"({"choices":[],)" + usage + "}");
  const std::string stop = Fake::ChatFinish("stop");
  EXPECT_EQ(usage_of(kHello + stop + alone, false), "9 8; 30 20");
  EXPECT_EQ(usage_of(kHello + Event(R"({"choices":[{"delta":{},"finish_reason":"stop"}],)" + usage + "}"), false),
            "9 8; 30 20");
  EXPECT_EQ(usage_of(reasoning + Fake::ChatFinish("length") + alone, false), "9 8; 30 20");
  // The first usage is not the last.
  EXPECT_EQ(usage_of(Fake::UsageChunk(9, 0) + kHello + stop + alone, false), "9 8; 30 20");
  EXPECT_EQ(usage_of(Fake::UsageChunk(9, 0) + reasoning + kHello + stop + Fake::DoneEvent(), false), "9 0; 3 1");
  EXPECT_EQ(usage_of(reasoning + kHello + stop + Fake::UsageChunk(0, 0) + Fake::DoneEvent(), false), "0 0; 3 1");
  EXPECT_EQ(usage_of(Fake::UsageChunk(9, 50) + reasoning + kHello, true), "9 0; 3 1");
  // vLLM's running usage is that of one choice.
  const std::string both = Fake::ChatFinish("stop", 0) +
                           Event(R"({"choices":[{"index":1,"delta":{},"finish_reason":"stop"}],)" + usage + "}");
  EXPECT_EQ(usage_of(kHello + both + Fake::UsageChunk(9, 60), false, 2), "9 0; 60 0");
}

TEST(UpstreamOutput, AnyDeltaIsProgress) {
  FakeSink sink;
  WakeSet wake;
  UpstreamOutput output(1, {}, &sink);
  uint64_t progress = output.progress();
  for (const std::string& delta : {Event(R"({"choices":[{"delta":{"role":"assistant"}}]})"),
                                   Event(R"({"choices":[{"delta":{"reasoning_content":"hm"}}]})"), Fake::ChatDelta(""),
                                   Fake::ChatDelta("a"), Fake::ChatFinish("stop")}) {
    output.Add(delta, &wake);
    EXPECT_GT(output.progress(), progress) << delta;
    progress = output.progress();
  }
  output.Add(": ping\n\n" + Fake::UsageChunk(1, 1), &wake);
  EXPECT_EQ(output.progress(), progress);
}

TEST(UpstreamOutput, EndsBeforeAStopStringThatTheServerIgnores) {
  UpstreamOutput::Options options;
  options.stop = {"END", "\n\n"};
  const std::string rest = Fake::ChatDelta("more") + Fake::ChatFinish("length") + Fake::UsageChunk(9, 30);
  const struct {
    std::string bytes;
    const char* story;
    bool cut_short;
  } rows[] = {
      {Fake::ChatDelta("ab") + Fake::ChatDelta("cEN") + Fake::ChatDelta("D!") + rest, "abc/2 stop; prompt 0 output 3",
       true},
      {Fake::ChatDelta("ENDab") + rest, "/0 stop; prompt 0 output 1", true},
      {Fake::ChatDelta("a\n") + Fake::ChatDelta("\nb") + rest, "a/1 stop; prompt 0 output 2", true},
      // The server honours it.
      {Fake::ChatDelta("abEN") + Fake::ChatFinish("stop") + Fake::UsageChunk(9, 30), "abEN/1 stop; prompt 9 output 30",
       false},
      {Fake::ChatDelta("ab") + Fake::ChatFinish("stop") + Fake::UsageChunk(9, 1), "ab/1 stop; prompt 9", false},
  };
  for (const auto& row : rows) {
    FakeSink sink;
    WakeSet wake;
    UpstreamOutput output(1, options, &sink);
    output.Add(row.bytes, &wake);
    EXPECT_EQ(sink.Story(), row.story) << row.bytes;
    EXPECT_EQ(output.cut_short(), row.cut_short) << row.bytes;
  }
}

TEST(UpstreamOutput, AStopStringEndsOneChoiceOfSeveral) {
  UpstreamOutput::Options options;
  options.stop = {"END"};
  FakeSink sink(2);
  WakeSet wake;
  UpstreamOutput output(2, options, &sink);
  output.Add(Fake::ChatDelta("aEND", 0) + Fake::ChatDelta("x", 0) + Fake::ChatDelta("b", 1), &wake);
  EXPECT_FALSE(output.cut_short());
  EXPECT_EQ(sink.Story(), "a/1 stop; b/1 -; prompt 0; open");
  output.Add(Fake::ChatFinish("length", 0) + Fake::ChatFinish("stop", 1) + Fake::UsageChunk(9, 30), &wake);
  EXPECT_EQ(sink.Story(), "a/1 stop; b/1 stop; prompt 9");
}

TEST(UpstreamOutput, EndsAtALimitThatTheServerWasNotGiven) {
  UpstreamOutput::Options options;
  options.max_tokens = 2;
  FakeSink sink;
  WakeSet wake;
  UpstreamOutput output(1, options, &sink);
  output.Add(kHello + Fake::ChatDelta("!") + Fake::ChatFinish("stop"), &wake);
  EXPECT_EQ(sink.Story(), "Hello/2 length; prompt 0");
  EXPECT_TRUE(output.cut_short());
}

TEST(UpstreamOutput, CancelEndsWhatIsNotComplete) {
  FakeSink sink;
  WakeSet wake;
  UpstreamOutput output(1, {}, &sink);
  output.Add(kHello, &wake);
  output.Cancel(&wake);
  output.Add(kHello, &wake);
  output.Finish(Unavailable("cut"), &wake);
  EXPECT_EQ(sink.Story(), "Hello/2 cancelled; prompt 0");
  EXPECT_EQ(output.outcome(), "cancelled");
}

TEST(UpstreamOutput, CancelComesTooLateForWhatIsComplete) {
  FakeSink sink;
  WakeSet wake;
  UpstreamOutput output(1, {}, &sink);
  output.Add(kHello + Fake::ChatFinish("stop"), &wake);
  output.Cancel(&wake);
  EXPECT_EQ(sink.Story(), "Hello/2 stop; prompt 0");
}

TEST(UpstreamOutput, RefusesAnAnswerBeyondItsLimits) {
  UpstreamOutput::Options options;
  options.max_text_bytes = 5;
  EXPECT_EQ(Story(kHello + Fake::ChatFinish("stop"), 1, options), "Hello/2 stop; prompt 0");
  options.max_text_bytes = 4;
  EXPECT_EQ(Story(kHello + Fake::ChatFinish("stop"), 1, options),
            "Hel/1 -; prompt 0; failed engine_failed !retry: the upstream's output is longer than 4 bytes");
  options.limits = {64, 64};
  EXPECT_EQ(Story(std::string(65, ':'), 1, options),
            "/0 -; prompt 0; failed engine_failed !retry: the upstream sent a line of more than 64 bytes");
}

TEST(UpstreamOutput, KeepsTheKeyOutOfMessages) {
  UpstreamOutput::Options options;
  options.secret = "sk-1";
  EXPECT_EQ(Story(Event(R"({"error":"key sk-1 is out of quota"})"), 1, options),
            "/0 -; prompt 0; failed engine_failed !retry: the upstream reported an error: key *** is out of quota");
}

}  // namespace
}  // namespace runnel::inference
