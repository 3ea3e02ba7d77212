#pragma once

#include <string>

namespace runnel::testing {

// PEM files of an authority, of a server at 127.0.0.1 and localhost, of a client, and of an authority that has signed
// none of these. Keys are new each time.
struct TestCertificates {
  std::string ca_file;
  std::string server_cert_file, server_key_file;
  std::string client_cert_file, client_key_file;
  std::string other_ca_file;
};

// Writes them into a folder. Valid for a day.
TestCertificates MakeTestCertificates(const std::string& folder);

}  // namespace runnel::testing
