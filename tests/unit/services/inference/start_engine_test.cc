#include "services/inference/start_engine.h"

#include <gtest/gtest.h>
#include <httplib.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
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
    const auto wait = [&](absl::Duration time) {
      if (time == absl::ZeroDuration()) return false;
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

TEST_F(StartEngineTest, ReturnsWhenTheServiceIsStoppedWhileAServerSaysNothing) {
  // A listener that accepts no connection: the kernel completes them.
  boost::asio::io_context io;
  const boost::asio::ip::tcp::acceptor silent(io, {boost::asio::ip::address_v4::loopback(), 0});
  const std::string url = absl::StrCat("http://127.0.0.1:", silent.local_endpoint().port());
  options_.upstream.urls = {url, url, url};
  options_.upstream.first_byte_timeout = absl::Minutes(5);
  int asked = 0;
  const absl::Time begin = absl::Now();
  const auto stop_at_the_third = [&](absl::Duration) { return ++asked == 3; };
  EXPECT_EQ(StartEngine(options_, &metrics_, admin_.get(), stop_at_the_third).status().code(),
            absl::StatusCode::kCancelled);
  EXPECT_EQ(asked, 3);
  EXPECT_LT(absl::Now() - begin, absl::Seconds(5));
}

TEST_F(StartEngineTest, DoesNotWaitForAnErrorThatTimeCannotCure) {
  options_.upstream.urls = {"nowhere"};
  EXPECT_EQ(StartEngine(options_, &metrics_, admin_.get(), [](absl::Duration) { return false; }).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(StartEngineTest, AServerWithoutAListOfModelsIsReadyForNamedModels) {
  server_.SetModels(404, "");
  options_.upstream.model = "named";
  const auto engine =
      StartEngine(options_, &metrics_, admin_.get(), [](absl::Duration time) { return time > absl::ZeroDuration(); });
  ASSERT_TRUE(engine.ok()) << engine.status();
  (*engine)->Stop();
}

}  // namespace
}  // namespace runnel::inference
