// Parts over gRPC: the table of opened parts, and what a reader that does not know parts sees.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/testing/reader_rule.h"
#include "tests/unit/services/inference/rpc/service_fixture.h"

namespace runnel::inference {
namespace {

using testing::ReaderRule;

class ServicePartsTest : public ServiceTest {
 protected:
  static v1::GenerateRequest Request(const std::string& parts) {
    v1::GenerateRequest request = ServiceTest::Request(5, 1);
    (*request.mutable_metadata())["scripted.parts"] = parts;
    return request;
  }
  // The events of a whole generation.
  std::vector<v1::GenerationEvent> Generate(const std::string& parts) {
    grpc::ClientContext context;
    const auto reader = stub_->Generate(&context, Request(parts));
    std::vector<v1::GenerationEvent> events;
    v1::GenerateResponse response;
    while (reader->Read(&response)) events.push_back(response.event());
    EXPECT_TRUE(reader->Finish().ok());
    return events;
  }
  struct Resumed {
    std::vector<v1::OpenedPart> parts;
    std::vector<v1::GenerationEvent> events;
  };
  Resumed Resume(const std::string& id, uint64_t after) {
    grpc::ClientContext context;
    v1::ResumeGenerationRequest request;
    request.set_generation_id(id);
    request.set_after_seq(after);
    const auto reader = stub_->ResumeGeneration(&context, request);
    Resumed resumed;
    v1::ResumeGenerationResponse response;
    while (reader->Read(&response)) {
      EXPECT_TRUE(resumed.events.empty() || response.parts_size() == 0);
      resumed.parts.insert(resumed.parts.end(), response.parts().begin(), response.parts().end());
      resumed.events.push_back(response.event());
    }
    EXPECT_TRUE(reader->Finish().ok());
    return resumed;
  }
};

constexpr char kParts[] = "reasoning:20,text:10,call:f+g:6,text:3";
constexpr uint64_t kLast = 1 + 20 + 10 + 14 + 3 + 1;

TEST_F(ServicePartsTest, AReaderThatDoesNotKnowPartsSeesTheText) {
  const auto events = Generate(kParts);
  ReaderRule rule;
  std::string content;
  for (const v1::GenerationEvent& event : events) {
    ASSERT_EQ(rule.Apply(event), "");
    if (!event.has_delta()) continue;
    const bool is_text = event.delta().kind() == v1::PART_KIND_TEXT;
    EXPECT_TRUE(is_text ? event.delta().content().empty() : event.delta().text().empty());
    content += event.delta().content();
  }
  EXPECT_EQ(rule.Verify(), "");
  EXPECT_EQ(rule.last(), kLast);
  EXPECT_FALSE(content.empty());
  EXPECT_EQ(rule.done().choices(0).finish_reason(), v1::FINISH_REASON_TOOL_CALLS);
  EXPECT_EQ(rule.done().choices(0).parts_size(), 5);
}

TEST_F(ServicePartsTest, APlainGenerationHasTheSameBytesAsBefore) {
  for (const v1::GenerationEvent& event : Generate("text:50")) {
    if (event.has_delta()) {
      v1::Delta before;
      before.set_choice(event.delta().choice());
      before.set_text(event.delta().text());
      before.set_tokens(event.delta().tokens());
      EXPECT_EQ(event.delta().SerializeAsString(), before.SerializeAsString());
    }
    if (event.has_done()) {
      EXPECT_EQ(event.done().choices(0).parts_size(), 0);
    }
  }
}

TEST_F(ServicePartsTest, ResumesAtEverySeqWithTheTableOfParts) {
  const auto whole = Generate(kParts);
  const std::string id = whole.front().generation_id();
  for (uint64_t after = 0; after < kLast; ++after) {
    const Resumed resumed = Resume(id, after);
    std::vector<std::string> contents;
    for (const v1::OpenedPart& part : resumed.parts) {
      EXPECT_EQ(part.index(), contents.size());
      EXPECT_EQ(part.kind() == v1::PART_KIND_TOOL_CALL, !part.id().empty() && !part.name().empty());
      contents.emplace_back(part.bytes(), '?');
    }
    for (const v1::GenerationEvent& event : resumed.events) {
      if (event.has_delta()) {
        const v1::Delta& delta = event.delta();
        ASSERT_LE(delta.part(), contents.size());
        if (delta.part() == contents.size()) {
          EXPECT_EQ(delta.has_call(), delta.kind() == v1::PART_KIND_TOOL_CALL);
          contents.emplace_back();
        } else {
          EXPECT_FALSE(delta.has_call());
        }
        contents[delta.part()] += delta.text() + delta.content();
      }
      for (int i = 0; event.has_done() && i < event.done().choices(0).parts_size(); ++i) {
        EXPECT_EQ(contents[static_cast<size_t>(i)].size(), event.done().choices(0).parts(i).bytes()) << after;
      }
    }
    EXPECT_EQ(contents.size(), 5u) << after;
  }
  EXPECT_TRUE(Resume(id, 0).parts.empty());
  EXPECT_TRUE(Resume(id, 1).parts.empty());
  // A gap has the parts itself, if they fit.
  const Resumed gap = Resume(id, kLast + 1);
  EXPECT_TRUE(gap.parts.empty());
  ASSERT_TRUE(gap.events.front().has_gap());
}

TEST_F(ServicePartsTest, AttachesWithTheTableOfParts) {
  const auto whole = Generate(kParts);
  const std::string id = whole.front().generation_id();
  LinkClient link(stub_);
  link.Attach(0, id, 21);
  link.Attach(1, id, 1);
  link.Attach(2, id, kLast);
  std::vector<int> sizes(3, -1);
  int ended = 0;
  link.ReadUntil([&] { return ended == 3; },
                 [&](const v1::LinkReply& reply) {
                   if (reply.has_attached()) sizes[reply.attachment()] = reply.attached().parts_size();
                   ended += reply.has_detached() ? 1 : 0;
                 },
                 [&](const v1::LinkEvent& event) { ended += event.event().has_done() ? 1 : 0; });
  EXPECT_THAT(sizes, ::testing::ElementsAre(1, 0, 5));
}

TEST_F(ServicePartsTest, GetGenerationHasTheParts) {
  const auto whole = Generate(kParts);
  grpc::ClientContext context;
  v1::GetGenerationRequest request;
  request.set_generation_id(whole.front().generation_id());
  v1::GetGenerationResponse response;
  ASSERT_TRUE(stub_->GetGeneration(&context, request, &response).ok());
  const v1::ChoiceText& choice = response.generation().choices(0);
  ASSERT_EQ(choice.parts_size(), 5);
  EXPECT_EQ(choice.text(), choice.parts(1).content() + choice.parts(4).content());
  EXPECT_EQ(choice.parts(3).name(), "g");
  EXPECT_EQ(response.generation().usage().reasoning_tokens(), 20u);
}

// The largest tables of 300 attachments: a message above the readers' limit would end the Link.
TEST_F(ServicePartsTest, TablesOfPartsStayBelowTheLimitOfAMessage) {
  std::string calls;
  for (int i = 0; i < 40; ++i) calls += (i > 0 ? "+" : "call:") + std::string(10, 'n');
  v1::GenerateRequest request = Request(calls + ":0");
  request.set_choice_count(8);
  grpc::ClientContext context;
  const auto reader = stub_->Generate(&context, request);
  v1::GenerateResponse response;
  std::string id;
  size_t largest = 0;
  while (reader->Read(&response)) {
    id = response.event().generation_id();
    largest = std::max(largest, response.ByteSizeLong());
  }
  ASSERT_TRUE(reader->Finish().ok());
  EXPECT_GT(largest, 8u * 40 * 20);
  LinkClient link(stub_);
  const uint64_t last = response.event().seq();
  for (uint32_t i = 0; i < 300; ++i) link.Attach(i, id, last - 1);
  uint32_t ended = 0;
  v1::LinkResponse batch;
  while (ended < 300 && link.stream->Read(&batch)) {
    // The first reply or event that exceeds the batch is its last.
    EXPECT_LT(batch.ByteSizeLong(), 4096u + 4 * largest);
    for (const auto& event : batch.events()) ended += event.event().has_done() ? 1 : 0;
  }
  EXPECT_EQ(ended, 300u);
}

}  // namespace
}  // namespace runnel::inference
