#include "services/inference/engines/upstream/upstream_answer.h"
#include "services/inference/generation/wake_set.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "services/inference/engines/upstream/upstream_failure.h"
#include "tests/testing/fake_openai_server.h"
#include "tests/unit/services/inference/engines/upstream/fake_sink.h"

namespace runnel::inference {
namespace {

using ::runnel::testing::FakeSink;
using Fake = ::runnel::testing::FakeOpenAiServer;

const char kCut[] = "; failed engine_unavailable retry: cut";

std::string Event(const std::string& data) { return "data: " + data + "\n\n"; }

// The outcome of a stream that ends after `bytes`.
std::string Story(const std::string& bytes, uint32_t choices = 1, const UpstreamAnswer::Options& options = {}) {
  FakeSink sink(choices);
  WakeSet wake;
  UpstreamAnswer answer(choices, options, &sink);
  answer.Add(bytes, &wake);
  answer.Finish(Unavailable("cut"), &wake);
  EXPECT_TRUE(answer.ended());
  return sink.Story();
}

const std::string kHello = Fake::ChatDelta("") + Fake::ChatDelta("Hel") + Fake::ChatDelta("lo");

TEST(UpstreamAnswer, LogprobsGoWithTheTextThatTheyAreOf) {
  FakeSink sink(1);
  WakeSet wake;
  UpstreamAnswer answer(1, {}, &sink);
  const auto event = [](const std::string& content, const std::string& token) {
    return Event(R"({"choices":[{"delta":{"content":")" + content + R"("},"logprobs":{"content":[)" + token + "]}}]}");
  };
  // A character in two tokens, of which the first has no text.
  answer.Add(event("", R"({"token":"?","logprob":-1,"bytes":[226,130]})"), &wake);
  EXPECT_EQ(sink.logprobs().size(), 0u);
  answer.Add(event("\u20AC", R"({"token":"?","logprob":-2,"bytes":[172]})"), &wake);
  answer.Add(Fake::ChatFinish("stop") + Fake::DoneEvent(), &wake);
  EXPECT_EQ(sink.Story(), "\u20AC/2 stop; prompt 0");
  EXPECT_EQ(sink.logprobs(), (std::vector<TokenLogprob>{{"\xE2\x82", -1, {}}, {"\xAC", -2, {}}}));
}

TEST(UpstreamAnswer, LogprobsCountTowardsTheLongestAnswer) {
  UpstreamAnswer::Options options;
  options.max_text_bytes = 10'000;
  std::string endless;
  for (int i = 0; i < 500; ++i) {
    endless += Event(R"({"choices":[{"delta":{"content":""},"logprobs":{"content":[{"token":"x","logprob":-1}]}}]})");
  }
  EXPECT_EQ(Story(endless, 1, options),
            "/0 -; prompt 0; failed engine_failed !retry: the upstream's output is longer than 10000 bytes");
}

TEST(UpstreamAnswer, KeepsAFailureBeforeAnythingWasSaid) {
  UpstreamAnswer::Options options;
  options.keep_first_failure = true;
  FakeSink sink(1);
  WakeSet wake;
  UpstreamAnswer answer(1, options, &sink);
  answer.Add(Fake::ChatDelta("") + Event("{nonsense"), &wake);
  EXPECT_TRUE(answer.failed());
  EXPECT_FALSE(answer.reported());
  EXPECT_EQ(answer.verdict(), UpstreamVerdict::kFaulty);
  ASSERT_TRUE(answer.kept_failure().has_value());
  EXPECT_EQ(answer.kept_failure()->code, "engine_failed");
  EXPECT_EQ(sink.Story(), "/0 -; prompt 0; open");
}

TEST(UpstreamAnswer, EveryWayAStreamMayEnd) {
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
      {"text after the finish", kHello + stop + Fake::ChatDelta("more") + Fake::DoneEvent(), "Hello/2 stop; prompt 0"},
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
       "Hello/2 stop; prompt 0"},
      {"another choice", Fake::ChatDelta("x", 7) + kHello + Fake::ChatFinish("stop", 1) + stop,
       "Hello/2 stop; prompt 0"},
      {"heartbeats", ": hb\n\n" + kHello + ": OPENROUTER PROCESSING\n" + stop, "Hello/2 stop; prompt 0"},
      {"empty data", kHello + "data:\n\ndata: \n\n" + stop, "Hello/2 stop; prompt 0"},
      {"completions", Fake::TextDelta("a") + Fake::TextDelta("b") + Event(R"({"choices":[{"finish_reason":"stop"}]})"),
       "ab/2 stop; prompt 0"},
  };
  for (const auto& row : rows) EXPECT_EQ(Story(row.bytes), row.story) << row.what;
}

TEST(UpstreamAnswer, IsTheSameWhereverTheBytesAreCut) {
  const std::string bytes = Fake::ChatDelta("a\xE6\x9D\xB1", 0) + ": hb\n\n" + Fake::ChatDelta("b", 1) +
                            Event("{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\xF0\x9F\"}}]}") +
                            Event("{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\x8C\x8A\"}}]}") +
                            Fake::ChatFinish("stop", 0) + Fake::ChatFinish("length", 1) + Fake::UsageChunk(3, 4) +
                            Fake::DoneEvent();
  for (size_t cut = 0; cut <= bytes.size(); ++cut) {
    FakeSink sink(2);
    WakeSet wake;
    UpstreamAnswer answer(2, {}, &sink);
    answer.Add(std::string_view(bytes).substr(0, cut), &wake);
    answer.Add(std::string_view(bytes).substr(cut), &wake);
    ASSERT_EQ(sink.Story(), "a\xE6\x9D\xB1\xF0\x9F\x8C\x8A/3 stop; b/1 length; prompt 3") << "cut at " << cut;
    EXPECT_EQ(answer.outcome(), "done");
  }
}

TEST(UpstreamAnswer, EveryPrefixOfAStreamIsAFailureUntilEveryChoiceHasFinished) {
  const std::string before =
      Fake::ChatDelta("a", 0) + Fake::ChatFinish("stop", 0) + Fake::ChatDelta("b", 1) + Fake::ChatFinish("stop", 1);
  const std::string bytes = before + Fake::UsageChunk(3, 2) + Fake::DoneEvent();
  for (size_t end = 0; end <= bytes.size(); ++end) {
    const bool failed = Story(bytes.substr(0, end), 2).find("failed") != std::string::npos;
    EXPECT_EQ(failed, end < before.size()) << "ends at " << end;
  }
}

TEST(UpstreamAnswer, EndsAChoiceAtOnceAndTheLastWithTheUsage) {
  FakeSink sink(2);
  WakeSet wake;
  UpstreamAnswer answer(2, {}, &sink);
  answer.Add(Fake::ChatFinish("stop", 1), &wake);
  EXPECT_EQ(sink.Story(), "/0 -; /0 stop; prompt 0; open");
  answer.Add(Fake::ChatFinish("stop", 0), &wake);
  EXPECT_TRUE(answer.complete());
  EXPECT_EQ(sink.Story(), "/0 -; /0 stop; prompt 0; open");
  answer.Add(Fake::UsageChunk(5, 0), &wake);
  EXPECT_EQ(sink.Story(), "/0 stop; /0 stop; prompt 5");
  EXPECT_TRUE(answer.ended());
  EXPECT_FALSE(answer.failed());
}

TEST(UpstreamAnswer, JoinsCharactersThatServersCutAndCountsTheirTokens) {
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

TEST(UpstreamAnswer, CountsTokensByARunningUsageIfThereIsOne) {
  const auto delta = [](const std::string& text, int completion_tokens) {
    return Event("{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"" + text +
                 "\"}}],\"usage\":{\"prompt_tokens\":4,\"completion_tokens\":" + std::to_string(completion_tokens) +
                 "}}");
  };
  EXPECT_EQ(Story(delta("a", 1) + delta("b", 5) + delta("c", 5) + Fake::ChatFinish("stop")), "abc/6 stop; prompt 4");
}

TEST(UpstreamAnswer, CancelEndsWhatIsNotComplete) {
  FakeSink sink;
  WakeSet wake;
  UpstreamAnswer answer(1, {}, &sink);
  answer.Add(kHello, &wake);
  answer.Cancel(&wake);
  answer.Add(kHello, &wake);
  answer.Finish(Unavailable("cut"), &wake);
  EXPECT_EQ(sink.Story(), "Hello/2 cancelled; prompt 0");
  EXPECT_EQ(answer.outcome(), "cancelled");
}

TEST(UpstreamAnswer, CancelComesTooLateForWhatIsComplete) {
  FakeSink sink;
  WakeSet wake;
  UpstreamAnswer answer(1, {}, &sink);
  answer.Add(kHello + Fake::ChatFinish("stop"), &wake);
  answer.Cancel(&wake);
  EXPECT_EQ(sink.Story(), "Hello/2 stop; prompt 0");
}

TEST(UpstreamAnswer, RefusesAnAnswerBeyondItsLimits) {
  UpstreamAnswer::Options options;
  options.max_text_bytes = 5;
  EXPECT_EQ(Story(kHello + Fake::ChatFinish("stop"), 1, options), "Hello/2 stop; prompt 0");
  options.max_text_bytes = 4;
  EXPECT_EQ(Story(kHello + Fake::ChatFinish("stop"), 1, options),
            "Hel/1 -; prompt 0; failed engine_failed !retry: the upstream's output is longer than 4 bytes");
  options.limits = {64, 64};
  EXPECT_EQ(Story(std::string(65, ':'), 1, options),
            "/0 -; prompt 0; failed engine_failed !retry: the upstream sent a line of more than 64 bytes");
}

TEST(UpstreamAnswer, KeepsTheKeyOutOfMessages) {
  UpstreamAnswer::Options options;
  options.secret = "sk-1";
  EXPECT_EQ(Story(Event(R"({"error":"key sk-1 is out of quota"})"), 1, options),
            "/0 -; prompt 0; failed engine_failed !retry: the upstream reported an error: key *** is out of quota");
}

}  // namespace
}  // namespace runnel::inference
