#include "services/base/admin_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <httplib.h>

#include <atomic>
#include <string>

#include "services/base/metrics.h"

namespace runnel::base {
namespace {

TEST(AdminServer, ServesLivenessReadinessAndMetrics) {
  Metrics metrics;
  metrics.Counter("runnel_things_total", "Things.").Increment();
  std::atomic<bool> ready = false;
  std::atomic<bool> stuck = false;
  const auto server =
      AdminServer::Create("127.0.0.1:0", &metrics,
                          {.not_ready_reason = [&] { return ready ? "" : "warming up"; },
                           .not_live_reason = [&] { return stuck ? "the engine takes no step" : ""; }});
  ASSERT_TRUE(server.ok()) << server.status();
  httplib::Client client("127.0.0.1", (*server)->port());

  EXPECT_EQ(client.Get("/livez")->status, 200);
  EXPECT_EQ(client.Get("/readyz")->status, 503);
  EXPECT_EQ(client.Get("/readyz")->body, "warming up\n");
  ready = true;
  EXPECT_EQ(client.Get("/readyz")->status, 200);
  EXPECT_THAT(client.Get("/metrics")->body, testing::HasSubstr("runnel_things_total 1"));
  EXPECT_EQ(client.Get("/other")->status, 404);
  stuck = true;
  EXPECT_EQ(client.Get("/livez")->status, 503);
  EXPECT_EQ(client.Get("/livez")->body, "the engine takes no step\n");
}

TEST(AdminServer, AProbeThatIsNotSetIsWell) {
  Metrics metrics;
  const auto server = AdminServer::Create("127.0.0.1:0", &metrics, {});
  ASSERT_TRUE(server.ok()) << server.status();
  httplib::Client client("127.0.0.1", (*server)->port());
  EXPECT_EQ(client.Get("/livez")->status, 200);
  EXPECT_EQ(client.Get("/readyz")->status, 200);
}

TEST(AdminServer, SaysThatThePortIsTaken) {
  Metrics metrics;
  const auto first = AdminServer::Create("127.0.0.1:0", &metrics, {});
  ASSERT_TRUE(first.ok());
  const std::string address = "127.0.0.1:" + std::to_string((*first)->port());
  const auto second = AdminServer::Create(address, &metrics, {});
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.status().message()), testing::HasSubstr(address));
}

}  // namespace
}  // namespace runnel::base
