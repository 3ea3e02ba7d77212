// Whole connections to the admin port: bytes split at arbitrary points through its parser, its routes and its
// connection. The same bytes in one piece must get the same statuses, and a probe must be answered after all of it.
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

// The statuses of the responses in `answer`, in order.
std::string Statuses(std::string_view answer) {
  constexpr std::string_view kLine = "HTTP/1.1 ";
  constexpr size_t kStatus = 3;
  std::string statuses;
  for (size_t at = answer.find(kLine); at != std::string_view::npos; at = answer.find(kLine, at + 1)) {
    // Messages name the version as well, at their end.
    if (answer.find("\r\ncontent-type: ", at) == answer.find("\r\n", at)) {
      statuses += answer.substr(at + kLine.size(), kStatus);
    }
  }
  return statuses;
}

std::string Converse(const std::vector<std::string_view>& pieces) {
  const std::string answer = runnel::fuzz::Converse(Port(), pieces, [] { std::this_thread::yield(); });
  FUZZ_CHECK(answer.empty() || answer.starts_with("HTTP/1.1 "));
  return Statuses(answer);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto input = runnel::fuzz::ParseInput(data, size);
  FUZZ_CHECK(Converse(input.pieces) == Converse({input.bytes}));
  FUZZ_CHECK(Converse({kProbe}) == "200");
  return 0;
}
