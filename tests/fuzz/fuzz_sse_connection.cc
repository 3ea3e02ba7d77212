// Complete connections to the SSE bridge, split at any position: parser, router, session, APIs and streams, with a
// service that replies automatically. For any input, the connection ends after its client has ended, every response is
// well-formed, and the bridge then serves the next client.

#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "bridges/base/bridge_metrics.h"
#include "bridges/server/server.h"
#include "bridges/sse/sse_session.h"
#include "services/base/metrics.h"
#include "services/base/strings.h"
#include "tests/fuzz/bridge_harness.h"
#include "tests/fuzz/connection_harness.h"
#include "tests/fuzz/fuzz_check.h"

namespace runnel::sse {
namespace {

constexpr std::string_view kProbe = "GET /config.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

// One bridge, which lives as long as the process.
class Bridge {
 public:
  Bridge(const std::string& inference, bool with_key) {
    SseOptions options;
    options.bridge.inference = inference;
    options.bridge.io_threads = 1;
    if (with_key) options.bridge.api_keys = {{"secret", "ann"}};
    context_ = std::make_unique<SseContext>(options);
    auto server = bridge::Server::Create(options.bridge, &bridge_metrics_,
                                         [this](bridge::IoThread* thread, bridge::Socket socket) {
                                           StartSession(thread, context_.get(), std::move(socket));
                                         });
    FUZZ_CHECK(server.ok());
    server_ = std::move(*server);
  }

  std::string Converse(const std::vector<std::string_view>& pieces) {
    return fuzz::Converse(server_->port(), pieces, [this] { fuzz::Settle(server_.get()); });
  }

 private:
  base::Metrics metrics_;
  bridge::BridgeMetrics bridge_metrics_{&metrics_, "sse"};
  std::unique_ptr<SseContext> context_;
  std::unique_ptr<bridge::Server> server_;
};

// The value of a field, or empty.
std::string_view Field(std::string_view head, const std::string& name) {
  const size_t at = head.find("\r\n" + name + ": ");
  if (at == std::string_view::npos) return {};
  const std::string_view rest = head.substr(at + name.size() + 4);
  return rest.substr(0, rest.find("\r\n"));
}

// Removes a chunked body from the front. False if it was cut.
bool TakeChunks(std::string_view* bytes) {
  for (;;) {
    const size_t end = bytes->find("\r\n");
    if (end == std::string_view::npos) return false;
    const std::string digits(bytes->substr(0, end));
    FUZZ_CHECK(!digits.empty() && digits.find_first_not_of("0123456789abcdef") == std::string::npos);
    const size_t size = std::strtoul(digits.c_str(), nullptr, 16);
    if (bytes->size() < end + 2 + size + 2) return false;
    FUZZ_CHECK(bytes->substr(end + 2 + size, 2) == "\r\n");
    bytes->remove_prefix(end + 2 + size + 2);
    if (size == 0) return true;
  }
}

// Checks one response and removes it from the front. False if nothing can follow it.
bool TakeResponse(std::string_view* bytes) {
  constexpr std::string_view kVersion = "HTTP/1.1 ";
  FUZZ_CHECK(bytes->size() > kVersion.size() + 3 && bytes->substr(0, kVersion.size()) == kVersion);
  const int status = std::atoi(std::string(bytes->substr(kVersion.size(), 3)).c_str());
  FUZZ_CHECK(status >= 100 && status <= 599);
  const size_t end = bytes->find("\r\n\r\n");
  FUZZ_CHECK(end != std::string_view::npos);
  const std::string_view head = bytes->substr(0, end + 2);
  bytes->remove_prefix(end + 4);
  if (status == 100) return true;
  FUZZ_CHECK(!Field(head, "x-request-id").empty());
  if (Field(head, "transfer-encoding") == "chunked") return TakeChunks(bytes);
  const std::string_view length = Field(head, "content-length");
  if (length.empty()) return status == 204 || status == 304;
  const size_t size = std::strtoul(std::string(length).c_str(), nullptr, 10);
  // The response to HEAD has a length and no body: the next response or the end follows.
  if (bytes->empty() || bytes->substr(0, kVersion.size()) == kVersion) return true;
  FUZZ_CHECK(bytes->size() >= size);
  if (Field(head, "content-type") == "application/json") FUZZ_CHECK(nlohmann::json::accept(bytes->substr(0, size)));
  bytes->remove_prefix(size);
  return true;
}

void CheckResponses(std::string_view responses) {
  while (!responses.empty() && TakeResponse(&responses)) {
  }
}

}  // namespace
}  // namespace runnel::sse

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  namespace fuzz = runnel::fuzz;
  namespace sse = runnel::sse;
  const fuzz::SplitInput input = fuzz::ParseInput(data, size);
  // A silent stream would continue after its client has only closed its side, and Converse waits for the end.
  auto& bridge = *fuzz::Bridges<sse::Bridge>(/*with_silence=*/false)[input.choice & 1];
  sse::CheckResponses(bridge.Converse(input.pieces));
  if (input.pieces.size() > 1) sse::CheckResponses(bridge.Converse({input.bytes}));
  FUZZ_CHECK(absl::StartsWith(bridge.Converse({sse::kProbe}), "HTTP/1.1 200 "));
  return 0;
}
