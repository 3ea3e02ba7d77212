#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <cstdio>
#include <memory>
#include <string>

#include "tests/unit/services/inference/engines/upstream/engine_harness.h"

namespace runnel::inference {
namespace {

using ::runnel::testing::FakeOpenAiServer;
using ::runnel::testing::FakeSink;

constexpr long kDay = 24 * 60 * 60;

// A key and a self-signed certificate for the address 127.0.0.1, as PEM files of this test.
FakeOpenAiServer::Tls MakeCertificate() {
  const FakeOpenAiServer::Tls files = {::testing::TempDir() + "/upstream_cert.pem",
                                       ::testing::TempDir() + "/upstream_key.pem"};
  const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key(EVP_EC_gen("P-256"), &EVP_PKEY_free);
  const std::unique_ptr<X509, decltype(&X509_free)> cert(X509_new(), &X509_free);
  X509_set_version(cert.get(), X509_VERSION_3);
  ASN1_INTEGER_set(X509_get_serialNumber(cert.get()), 1);
  X509_gmtime_adj(X509_getm_notBefore(cert.get()), -kDay);
  X509_gmtime_adj(X509_getm_notAfter(cert.get()), kDay);
  X509_set_pubkey(cert.get(), key.get());
  const std::string name = "fake upstream";
  X509_NAME_add_entry_by_txt(X509_get_subject_name(cert.get()), "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
  X509_set_issuer_name(cert.get(), X509_get_subject_name(cert.get()));
  for (const auto& [nid, value] :
       {std::pair{NID_basic_constraints, "CA:TRUE"}, {NID_subject_alt_name, "IP:127.0.0.1"}}) {
    X509_EXTENSION* const extension = X509V3_EXT_conf_nid(nullptr, nullptr, nid, value);
    X509_add_ext(cert.get(), extension, -1);
    X509_EXTENSION_free(extension);
  }
  X509_sign(cert.get(), key.get(), EVP_sha256());
  std::FILE* file = std::fopen(files.certificate_file.c_str(), "w");
  PEM_write_X509(file, cert.get());
  std::fclose(file);
  file = std::fopen(files.key_file.c_str(), "w");
  PEM_write_PrivateKey(file, key.get(), nullptr, nullptr, 0, nullptr, nullptr);
  std::fclose(file);
  return files;
}

std::string StoryOverTls(const std::string& ca_file, FakeOpenAiServer* server) {
  base::Metrics metrics;
  UpstreamOptions options;
  options.urls = {server->url()};
  options.model = "m";
  options.ca_file = ca_file;
  auto engine = CreateUpstreamEngine(options, &metrics);
  if (!engine.ok()) return engine.status().ToString();
  GenerationRequest request;
  request.prompt = "Hi";
  const auto sink = std::make_shared<FakeSink>();
  (*engine)->Start((*engine)->Prepare(request).value(), sink);
  EXPECT_TRUE(sink->WaitEnded());
  (*engine)->Stop();
  return sink->Story();
}

TEST(UpstreamTls, StreamsFromAServerItTrustsAndFromNoOther) {
  const FakeOpenAiServer::Tls files = MakeCertificate();
  FakeOpenAiServer server(files);
  server.Push({200,
               "text/event-stream",
               {FakeOpenAiServer::TextDelta("secret"), FakeOpenAiServer::ChatFinish("stop")},
               FakeOpenAiServer::End::kWhole,
               false,
               {}});
  EXPECT_EQ(StoryOverTls("", &server),
            "/0 -; prompt 0; failed engine_unavailable retry: no TLS connection to the upstream");
  EXPECT_EQ(server.requests().size(), 0u);
  EXPECT_EQ(StoryOverTls(files.certificate_file, &server), "secret/1 stop; prompt 0");
}

}  // namespace
}  // namespace runnel::inference
