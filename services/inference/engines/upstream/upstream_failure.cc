#include "services/inference/engines/upstream/upstream_failure.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "services/base/strings.h"
#include "services/inference/engines/utf8.h"

namespace runnel::inference {
namespace {

constexpr size_t kMaxMessageBytes = 512;
constexpr char kEngineFailed[] = "engine_failed";
constexpr char kEngineUnavailable[] = "engine_unavailable";
constexpr char kEngineTimeout[] = "engine_timeout";

std::string WithMessage(std::string text, const UpstreamError& error, std::string_view secret) {
  std::string message = error.message;
  if (!secret.empty()) message = absl::StrReplaceAll(message, {{base::ToAbsl(secret), "***"}});
  message = ToMessage(message, kMaxMessageBytes);
  return message.empty() ? text : absl::StrCat(text, ": ", message);
}

}  // namespace

Failed FailureOfStatus(int status, const UpstreamError& error, std::string_view secret) {
  switch (status) {
    case 401:
    case 403:
      return {kEngineFailed, absl::StrCat("the upstream rejected the API key (HTTP ", status, ")"), false};
    case 408:
    case 504:
      return {kEngineTimeout, absl::StrCat("the upstream took too long (HTTP ", status, ")"), true};
    case 429:
    case 502:
    case 503:
      return {kEngineUnavailable, WithMessage(absl::StrCat("the upstream is busy (HTTP ", status, ")"), error, secret),
              true};
    default:
      return {kEngineFailed,
              WithMessage(absl::StrCat("the upstream rejected the request (HTTP ", status, ")"), error, secret), false};
  }
}

UpstreamVerdict VerdictOfStatus(int status) {
  if (status == 429) return UpstreamVerdict::kBusy;
  if (status >= 500 || status == 401 || status == 403 || status == 408) return UpstreamVerdict::kFaulty;
  return UpstreamVerdict::kHealthy;
}

absl::Duration ParseRetryAfter(std::string_view header) {
  uint32_t seconds = 0;
  return absl::SimpleAtoi(base::ToAbsl(header), &seconds) ? absl::Seconds(seconds) : absl::ZeroDuration();
}

Failed FailureOfError(const UpstreamError& error, std::string_view secret) {
  if (error.status != 0) return FailureOfStatus(error.status, error, secret);
  return {kEngineFailed, WithMessage("the upstream reported an error", error, secret), false};
}

Failed Unavailable(std::string_view message) { return {kEngineUnavailable, std::string(message), true}; }

std::string ToMessage(std::string_view bytes, size_t max_bytes) {
  // Cut twice: before, so that a huge message costs nothing; after, because U+FFFD is longer than what it replaces.
  std::string text = ToValidUtf8(bytes.substr(0, max_bytes));
  std::replace_if(
      text.begin(), text.end(), [](unsigned char c) { return c < 0x20 || c == 0x7F; }, ' ');
  if (text.size() <= max_bytes) return text;
  size_t end = max_bytes;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return text.substr(0, end);
}

}  // namespace runnel::inference
