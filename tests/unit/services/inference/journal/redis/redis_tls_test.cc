#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "services/inference/journal/redis/redis_client.h"
#include "tests/testing/test_certificates.h"
#include "tests/testing/wait.h"
#include "tests/unit/services/inference/journal/redis/client_harness.h"

namespace runnel::inference {
namespace {

using ::runnel::testing::MakeTestCertificates;
using ::runnel::testing::RedisServer;
using ::runnel::testing::TestCertificates;
using Reason = RedisFailure::Reason;

// Valkey's wheel has no TLS.
class RedisTlsTest : public ::testing::Test {
 protected:
  RedisServer::Options Server() const {
    return {.cert_file = files_.server_cert_file, .key_file = files_.server_key_file};
  }
  RedisOptions Options(const RedisServer& server) const {
    RedisOptions options = OptionsFor(server.url());
    options.ca_file = files_.ca_file;
    return options;
  }

  const TestCertificates files_ = MakeTestCertificates(TestFolder());
};

TEST_F(RedisTlsTest, ConnectsToAServerThatItTrusts) {
  START_REDIS(server, Server());
  ClientHarness harness(Options(*server));
  ASSERT_TRUE(harness.WaitUp());
  const std::string large(3 << 20, 'x');
  EXPECT_EQ(harness.Call({"SET", "a", large}), "+OK");
  EXPECT_TRUE(harness.Call({"GET", "a"}) == large);
  server->Kill();
  harness.WaitDown(Reason::kRefused);
  ASSERT_TRUE(server->Restart().ok());
  EXPECT_TRUE(harness.WaitUp(2));
}

TEST_F(RedisTlsTest, ChecksTheNameOfTheServer) {
  RedisServer::Options server_options = Server();
  server_options.config = {"bind 127.0.0.1 127.0.0.2"};
  START_REDIS(server, server_options);
  RedisOptions options = Options(*server);
  options.url.servers[0].host = "localhost";
  ClientHarness named(options);
  EXPECT_TRUE(named.WaitUp());
  options.url.servers[0].host = "127.0.0.2";
  ClientHarness other(options);
  other.WaitDown(Reason::kTls, "its certificate is not trusted");
}

TEST_F(RedisTlsTest, RejectsAServerOfAnotherAuthority) {
  START_REDIS(server, Server());
  RedisOptions options = Options(*server);
  options.ca_file = files_.other_ca_file;
  ClientHarness other(options);
  other.WaitDown(Reason::kTls, "its certificate is not trusted");
  options.ca_file = "";
  ClientHarness system(options);
  system.WaitDown(Reason::kTls);
}

TEST_F(RedisTlsTest, PresentsACertificate) {
  RedisServer::Options server_options = Server();
  server_options.client_ca_file = files_.ca_file;
  START_REDIS(server, server_options);
  RedisOptions options = Options(*server);
  ClientHarness without(options);
  without.WaitDown(Reason::kTls);
  options.cert_file = files_.client_cert_file;
  options.cert_key_file = files_.client_key_file;
  ClientHarness with(options);
  EXPECT_TRUE(with.WaitUp());
  EXPECT_EQ(with.Call({"PING"}), "+PONG");
  options.cert_key_file = files_.server_key_file;
  EXPECT_NE(RedisClient::Create(options, &with).status().message().find("--log_cert_key_file"), std::string::npos);
}

TEST_F(RedisTlsTest, AsksASentinelOverTlsToo) {
  START_REDIS(server, Server());
  RedisServer::Options sentinel_options = Server();
  sentinel_options.sentinel_of = server->port();
  START_REDIS(sentinel, sentinel_options);
  RedisOptions options = OptionsFor(absl::StrCat("rediss+sentinel://127.0.0.1:", sentinel->port(), "/main"));
  options.ca_file = files_.ca_file;
  ClientHarness harness(options);
  EXPECT_TRUE(harness.WaitUp());
  EXPECT_EQ(harness.info().address, absl::StrCat("127.0.0.1:", server->port()));
  options.ca_file = files_.other_ca_file;
  ClientHarness other(options);
  other.WaitDown(Reason::kSentinel, "its certificate is not trusted");
}

TEST_F(RedisTlsTest, ReadsItsFilesAtEachConnect) {
  START_REDIS(server, Server());
  RedisOptions options = Options(*server);
  const auto copy = [](const std::string& from, const std::string& to) {
    std::filesystem::copy_file(from, to, std::filesystem::copy_options::overwrite_existing);
  };
  options.ca_file = TestFolder() + "/rotated_ca.pem";
  copy(files_.other_ca_file, options.ca_file);
  ClientHarness harness(options);
  harness.WaitDown(Reason::kTls);
  std::filesystem::remove(options.ca_file);
  harness.WaitDown(Reason::kOptions, "--log_ca_file");
  copy(files_.ca_file, options.ca_file);
  EXPECT_TRUE(harness.WaitUp());
}

TEST_F(RedisTlsTest, ExplainsAMissingOrNeedlessS) {
  START_REDIS(tls, Server());
  START_REDIS(plain, {});
  ClientHarness to_tls(OptionsFor(absl::StrCat("redis://127.0.0.1:", tls->port())));
  // Redis closes without a reply, or with an alert, as OpenSSL decides.
  EXPECT_TRUE(testing::WaitUntil([&] { return to_tls.failures() > 0; }));
  RedisOptions options = Options(*tls);
  options.url.servers[0].port = plain->port();
  options.connect_timeout = absl::Milliseconds(300);
  ClientHarness to_plain(options);
  EXPECT_TRUE(testing::WaitUntil([&] { return to_plain.failures() > 0; }));
  EXPECT_EQ(to_plain.events().find("up"), std::string::npos);
}

}  // namespace
}  // namespace runnel::inference
