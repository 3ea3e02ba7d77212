// A complete connection: bytes split at arbitrary points go through the parser, and each request's target through the
// router. The same bytes in one piece must give the same result.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "bridges/sse/http/routes.h"
#include "services/base/http_parser.h"
#include "tests/fuzz/fuzz_check.h"

namespace {

using runnel::base::HttpLimits;
using runnel::base::HttpParser;

constexpr HttpLimits kLimits{
    .max_header_bytes = 1024, .max_target_bytes = 256, .max_headers = 16, .max_body_bytes = 512};

// Returns, as text, the requests that were parsed. The bytes of `cut` are the sizes of the pieces.
std::string Serve(std::string_view bytes, std::string_view cut) {
  std::string seen;
  std::string pending;
  std::optional<HttpParser> parser(kLimits);
  for (size_t at = 0, step = 0; at < bytes.size(); ++step) {
    const size_t n = cut.empty() ? bytes.size() : 1 + static_cast<unsigned char>(cut[step % cut.size()]) % 64;
    pending += bytes.substr(at, n);
    at += n;
    for (size_t used = 1; used > 0 && parser->state() != HttpParser::State::kFailed;) {
      used = parser->Feed(pending);
      FUZZ_CHECK(used <= pending.size());
      pending.erase(0, used);
      FUZZ_CHECK(parser->buffered() <= 4 * (kLimits.max_header_bytes + kLimits.max_body_bytes));
      if (parser->state() != HttpParser::State::kDone) continue;
      const auto& head = parser->head();
      FUZZ_CHECK(!head.method.empty() && !head.target.empty());
      FUZZ_CHECK(head.http_1_0 || head.Count("host") == 1);
      const auto route = runnel::sse::ParseTarget(head.target);
      seen += head.method + " " + head.target + " " + std::string(head.Header("host")) +
              (route.ok() ? route->path : "?") + "\n" + parser->TakeBody() + "\n";
      parser.emplace(kLimits);
      used = 1;
    }
    if (parser->state() == HttpParser::State::kFailed) return seen + std::to_string(parser->error().status);
  }
  return seen;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view all(reinterpret_cast<const char*>(data), size);
  const size_t half = size == 0 ? 0 : std::min<size_t>(static_cast<unsigned char>(all[0]) % 16, size - 1);
  const std::string_view cut = all.substr(std::min<size_t>(1, size), half);
  const std::string_view bytes = all.substr(std::min(size, 1 + half));
  FUZZ_CHECK(Serve(bytes, cut) == Serve(bytes, ""));
  return 0;
}
