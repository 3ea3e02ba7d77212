#include "services/inference/start_engine.h"

#include <gtest/gtest.h>
#include <httplib.h>

#include <memory>
#include <string>
#include <utility>

#include "tests/testing/fake_openai_server.h"

namespace runnel::inference {
namespace {

using testing::FakeOpenAiServer;

class StartEngineTest : public ::testing::Test {
 protected:
  StartEngineTest() {
    options_.engine = EngineKind::kUpstream;
    options_.upstream.urls = {server_.url()};
    auto admin = base::AdminServer::Create("127.0.0.1:0", &metrics_, {});
    EXPECT_TRUE(admin.ok()) << admin.status();
    admin_ = std::move(admin).value();
  }
  httplib::Result Get(const std::string& path) { return httplib::Client("127.0.0.1", admin_->port()).Get(path); }

  FakeOpenAiServer server_;
  base::Metrics metrics_;
  Options options_;
  std::unique_ptr<base::AdminServer> admin_;
};

TEST_F(StartEngineTest, ReportsWhyItIsNotReadyAndBecomesReadyByItself) {
  for (const char* const model : {"", "named"}) {
    options_.upstream.model = model;
    server_.SetModels(503, "{}");
    std::string ready;
    std::string live;
    // The server becomes ready while the service waits.
    const auto wait = [&](absl::Duration) {
      const auto response = Get("/readyz");
      EXPECT_EQ(response ? response->status : 0, 503);
      ready = response ? response->body : "";
      live = Get("/livez") ? "live" : "";
      server_.SetModels(200, R"({"data":[{"id":"m"}]})");
      return false;
    };
    const auto engine = StartEngine(options_, &metrics_, admin_.get(), wait);
    ASSERT_TRUE(engine.ok()) << engine.status();
    EXPECT_NE(ready.find(server_.url() + "/models: it responds with HTTP 503"), std::string::npos) << ready;
    EXPECT_EQ(live, "live");
    (*engine)->Stop();
  }
}

TEST_F(StartEngineTest, ReturnsWhenTheServiceIsStopped) {
  server_.SetModels(401, "{}");
  options_.upstream.model = "named";
  EXPECT_EQ(StartEngine(options_, &metrics_, admin_.get(), [](absl::Duration) { return true; }).status().code(),
            absl::StatusCode::kCancelled);
}

TEST_F(StartEngineTest, DoesNotWaitForAnErrorThatTimeCannotCure) {
  options_.upstream.urls = {"nowhere"};
  EXPECT_EQ(StartEngine(options_, &metrics_, admin_.get(), [](absl::Duration) { return false; }).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(StartEngineTest, AServerWithoutAListOfModelsIsReadyForNamedModels) {
  server_.SetModels(404, "");
  options_.upstream.model = "named";
  const auto engine = StartEngine(options_, &metrics_, admin_.get(), [](absl::Duration) { return true; });
  ASSERT_TRUE(engine.ok()) << engine.status();
  (*engine)->Stop();
}

}  // namespace
}  // namespace runnel::inference
