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
constexpr size_t kMaxNameBytes = 128;
constexpr char kEngineFailed[] = "engine_failed";
constexpr char kEngineUnavailable[] = "engine_unavailable";
constexpr char kEngineTimeout[] = "engine_timeout";
constexpr char kRequestRejected[] = "request_rejected";

std::string WithoutSecret(const std::string& text, std::string_view secret, size_t max_bytes) {
  return ToMessage(secret.empty() ? text : absl::StrReplaceAll(text, {{base::ToAbsl(secret), "***"}}), max_bytes);
}

std::string WithMessage(std::string text, const UpstreamError& error, std::string_view secret) {
  const std::string message = WithoutSecret(error.message, secret, kMaxMessageBytes);
  return message.empty() ? text : absl::StrCat(text, ": ", message);
}

ServerError ServerErrorOf(int status, const UpstreamError& error, std::string_view secret, absl::Duration retry_after) {
  return {status, WithoutSecret(error.type, secret, kMaxNameBytes), WithoutSecret(error.code, secret, kMaxNameBytes),
          WithoutSecret(error.param, secret, kMaxNameBytes), retry_after};
}

}  // namespace

Failed FailureOfStatus(int status, const UpstreamError& error, std::string_view secret, absl::Duration retry_after) {
  switch (status) {
    case 401:
    case 402:
    case 403:
    case 407:
      return {kEngineFailed, absl::StrCat("the upstream rejected the API key (HTTP ", status, ")"), false};
    case 408:
    case 504:
      return {kEngineTimeout, absl::StrCat("the upstream took too long (HTTP ", status, ")"), true};
    case 429:
    case 502:
    case 503:
    case 529:  // of Anthropic: overloaded
      return {kEngineUnavailable, WithMessage(absl::StrCat("the upstream is busy (HTTP ", status, ")"), error, secret),
              true, ServerErrorOf(status == 429 ? 429 : 503, error, secret, retry_after)};
    default:
      break;
  }
  const std::string rejected = absl::StrCat("the upstream rejected the request (HTTP ", status, ")");
  if (status < 400 || status >= 500) return {kEngineFailed, WithMessage(rejected, error, secret), false};
  const std::string message = WithoutSecret(error.message, secret, kMaxMessageBytes);
  return {kRequestRejected, message.empty() ? rejected : message, false,
          ServerErrorOf(status, error, secret, retry_after)};
}

UpstreamVerdict VerdictOfStatus(int status, absl::Duration retry_after) {
  if (status == 429 || (status == 503 && retry_after > absl::ZeroDuration())) return UpstreamVerdict::kBusy;
  if (status >= 500 || status == 401 || status == 403 || status == 408) return UpstreamVerdict::kFaulty;
  return UpstreamVerdict::kHealthy;
}

absl::Duration ParseRetryAfter(std::string_view header, absl::Time now) {
  constexpr absl::Duration kLongest = absl::Hours(24);
  uint32_t seconds = 0;
  if (absl::SimpleAtoi(base::ToAbsl(header), &seconds)) return std::min(absl::Seconds(seconds), kLongest);
  absl::Time date;
  std::string error;
  if (!absl::ParseTime("%a, %d %b %Y %H:%M:%S GMT", base::ToAbsl(header), &date, &error)) return absl::ZeroDuration();
  return std::clamp(date - now, absl::ZeroDuration(), kLongest);
}

bool NamesField(const Failed& failed, std::string_view field) {
  if (!failed.server_error.has_value() || (failed.server_error->status != 400 && failed.server_error->status != 422)) {
    return false;
  }
  return failed.server_error->param == field || failed.message.find(field) != std::string::npos;
}

Failed FailureOfError(const UpstreamError& error, std::string_view secret) {
  if (error.status != 0) return FailureOfStatus(error.status, error, secret);
  // OpenAI's errors name their type instead.
  if (error.type == "invalid_request_error") return FailureOfStatus(400, error, secret);
  return {kEngineFailed, WithMessage("the upstream reported an error", error, secret), false};
}

Failed FailureOfContinuation(const Failed& failed) {
  if (failed.code != kRequestRejected) return failed;
  return {"generation_lost", absl::StrCat("the upstream does not continue the output: ", failed.message), true};
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
