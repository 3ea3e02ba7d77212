// Requests that are larger than the service accepts are refused before they are sent, without effect on others.
#include <gtest/gtest.h>

#include <string>

#include "tests/unit/bridges/link/link_harness.h"

namespace runnel::bridge {
namespace {

v1::GenerateRequest Prompt(size_t bytes) {
  v1::GenerateRequest request;
  request.set_prompt(std::string(bytes, 'x'));
  return request;
}

// Expects that a prompt of `above` bytes is refused and one of `below` bytes sent, and that other attachments continue.
void ExpectLimitBetween(LinkHarness* harness, size_t below, size_t above) {
  ASSERT_TRUE(harness->Connected());
  RecordingReader& other = harness->NewReader();
  harness->Attach(&other, FakeId('a'), 1);
  const auto attach = harness->service.NextCommand();
  ASSERT_TRUE(attach);
  harness->service.Attach(*attach, FakeId('a'), v1::GENERATION_STATUS_RUNNING, 5);

  RecordingReader& refused = harness->NewReader();
  harness->Generate(&refused, Prompt(above));
  EXPECT_TRUE(refused.WaitFor("end INVALID_ARGUMENT"));
  EXPECT_EQ(refused.news().size(), 1u);

  RecordingReader& taken = harness->NewReader();
  harness->Generate(&taken, Prompt(below));
  const auto command = harness->service.NextCommand();
  ASSERT_TRUE(command && command->request.has_generate());
  EXPECT_EQ(command->request.generate().request().prompt().size(), below);
  harness->service.Attach(*command, FakeId('b'));
  EXPECT_TRUE(taken.WaitFor("opened " + FakeId('b') + " 0"));

  harness->service.SendEvents(*attach, {testing::DeltaEvent(2, "y")});
  EXPECT_TRUE(other.WaitFor("event 2"));
  EXPECT_EQ(harness->service.links_opened(), 1);
}

TEST(RequestSize, IsTheLimitThatTheServiceAnnounces) {
  testing::FakeInferenceService::Options service;
  service.max_request_bytes = 100'000;
  LinkHarness harness(LinkHarness::QuickOptions(), service);
  ExpectLimitBetween(&harness, 99'800, 100'000);
}

// A service without the field has gRPC's default limit, and this fake enforces it.
TEST(RequestSize, IsTheGrpcDefaultIfTheServiceDoesNotAnnounceOne) {
  LinkHarness harness;
  ExpectLimitBetween(&harness, (4 << 20) - 200, 4 << 20);
}

TEST(RequestSize, AReaderIsNotCalledBeforeGenerateReturns) {
  testing::FakeInferenceService::Options service;
  service.max_request_bytes = 1'000;
  LinkHarness harness(LinkHarness::QuickOptions(), service);
  ASSERT_TRUE(harness.Connected());
  RecordingReader& reader = harness.NewReader();
  harness.Run([&] {
    Subscription subscription(&harness.thread().router, &reader);
    subscription.Generate(Prompt(2'000));
    EXPECT_TRUE(reader.log().empty());
  });
  // The subscription is destroyed, so nothing calls the reader later.
  harness.Run([] {});
  EXPECT_TRUE(reader.log().empty());
}

}  // namespace
}  // namespace runnel::bridge
