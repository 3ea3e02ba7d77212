// Complete connections to the admin port: bytes split at arbitrary points go through its parser, routes and connection.
// The same bytes in one piece must get the same statuses, and a probe afterwards must get a response.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <thread>

#include "services/base/admin_server.h"
#include "services/base/metrics.h"
#include "tests/fuzz/connection_harness.h"
#include "tests/fuzz/fuzz_check.h"

namespace {

using runnel::base::AdminServer;

constexpr std::string_view kProbe = "GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

int Port() {
  static runnel::base::Metrics metrics;
  static const auto server = AdminServer::Create(
      "127.0.0.1:0", &metrics, {.not_ready_reason = [] { return "fuzzing"; }, .not_live_reason = nullptr});
  FUZZ_CHECK(server.ok());
  return (*server)->port();
}

// The statuses of the responses in `response`, in order.
std::string Statuses(std::string_view response) {
  constexpr std::string_view kLine = "HTTP/1.1 ";
  constexpr size_t kStatus = 3;
  std::string statuses;
  for (size_t at = response.find(kLine); at != std::string_view::npos; at = response.find(kLine, at + 1)) {
    // Error messages also contain the version, at their end.
    if (response.find("\r\ncontent-type: ", at) == response.find("\r\n", at)) {
      statuses += response.substr(at + kLine.size(), kStatus);
    }
  }
  return statuses;
}

std::string Converse(const std::vector<std::string_view>& pieces) {
  const std::string response = runnel::fuzz::Converse(Port(), pieces, [] { std::this_thread::yield(); });
  FUZZ_CHECK(response.empty() || response.starts_with("HTTP/1.1 "));
  return Statuses(response);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto input = runnel::fuzz::ParseInput(data, size);
  FUZZ_CHECK(Converse(input.pieces) == Converse({input.bytes}));
  FUZZ_CHECK(Converse({kProbe}) == "200");
  return 0;
}
