#include "tests/testing/test_certificates.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <cstdio>
#include <memory>
#include <vector>

namespace runnel::testing {
namespace {

constexpr long kDay = 24 * 60 * 60;

using Key = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;
using Certificate = std::unique_ptr<X509, decltype(&X509_free)>;

struct Issued {
  Key key{EVP_EC_gen("P-256"), &EVP_PKEY_free};
  Certificate cert{X509_new(), &X509_free};
};

struct Extension {
  int nid;
  const char* value;
};

// `issuer` null: self-signed.
Issued Issue(const std::string& name, const std::vector<Extension>& extensions, const Issued* issuer) {
  static long serial = 0;
  Issued issued;
  X509* const cert = issued.cert.get();
  X509_set_version(cert, X509_VERSION_3);
  ASN1_INTEGER_set(X509_get_serialNumber(cert), ++serial);
  X509_gmtime_adj(X509_getm_notBefore(cert), -kDay);
  X509_gmtime_adj(X509_getm_notAfter(cert), kDay);
  X509_set_pubkey(cert, issued.key.get());
  X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
  const Issued& by = issuer == nullptr ? issued : *issuer;
  X509_set_issuer_name(cert, X509_get_subject_name(by.cert.get()));
  for (const Extension& each : extensions) {
    X509_EXTENSION* const extension = X509V3_EXT_conf_nid(nullptr, nullptr, each.nid, each.value);
    X509_add_ext(cert, extension, -1);
    X509_EXTENSION_free(extension);
  }
  X509_sign(cert, by.key.get(), EVP_sha256());
  return issued;
}

std::string WriteCertificate(const Issued& issued, const std::string& path) {
  std::FILE* const file = std::fopen(path.c_str(), "w");
  PEM_write_X509(file, issued.cert.get());
  std::fclose(file);
  return path;
}

std::string WriteKey(const Issued& issued, const std::string& path) {
  std::FILE* const file = std::fopen(path.c_str(), "w");
  PEM_write_PrivateKey(file, issued.key.get(), nullptr, nullptr, 0, nullptr, nullptr);
  std::fclose(file);
  return path;
}

}  // namespace

TestCertificates MakeTestCertificates(const std::string& folder) {
  const std::vector<Extension> authority = {{NID_basic_constraints, "critical,CA:TRUE"}};
  const Issued ca = Issue("test authority", authority, nullptr);
  const Issued other = Issue("other authority", authority, nullptr);
  const Issued server = Issue("test server", {{NID_subject_alt_name, "IP:127.0.0.1,DNS:localhost"}}, &ca);
  const Issued client = Issue("test client", {{NID_ext_key_usage, "clientAuth"}}, &ca);
  TestCertificates files;
  files.ca_file = WriteCertificate(ca, folder + "/ca.pem");
  files.server_cert_file = WriteCertificate(server, folder + "/server.pem");
  files.server_key_file = WriteKey(server, folder + "/server_key.pem");
  files.client_cert_file = WriteCertificate(client, folder + "/client.pem");
  files.client_key_file = WriteKey(client, folder + "/client_key.pem");
  files.other_ca_file = WriteCertificate(other, folder + "/other_ca.pem");
  return files;
}

}  // namespace runnel::testing
