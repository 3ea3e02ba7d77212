// Bodies of POST /v1/generations: an accepted request is within the limits of inference.proto.
#include <cstdint>
#include <string_view>

#include "bridges/wire/stream_request.h"
#include "tests/fuzz/fuzz_check.h"
#include "tests/fuzz/request_checks.h"

namespace {

void CheckRequest(const runnel::v1::GenerateRequest& request) {
  FUZZ_CHECK(request.messages().empty() != request.prompt().empty());
  FUZZ_CHECK(!request.has_max_tokens() || request.max_tokens() >= 1);
  FUZZ_CHECK(!request.has_choice_count() || (request.choice_count() >= 1 && request.choice_count() <= 8));
  FUZZ_CHECK(request.stop_size() <= 4);
  for (const auto& stop : request.stop()) FUZZ_CHECK(!stop.empty() && stop.size() <= 128);
  FUZZ_CHECK(request.metadata_size() <= 16);
  for (const auto& [key, value] : request.metadata()) FUZZ_CHECK(key.size() <= 64 && value.size() <= 512);
  const auto& sampling = request.sampling();
  // Written so that NaN fails.
  FUZZ_CHECK(!sampling.has_temperature() || (sampling.temperature() >= 0 && sampling.temperature() <= 2));
  FUZZ_CHECK(!sampling.has_top_p() || (sampling.top_p() > 0 && sampling.top_p() <= 1));
  FUZZ_CHECK(!sampling.has_top_k() || sampling.top_k() >= 1);
  FUZZ_CHECK(!sampling.has_min_p() || (sampling.min_p() >= 0 && sampling.min_p() <= 1));
  FUZZ_CHECK(request.detach_timeout().seconds() >= 0 && request.detach_timeout().nanos() >= 0);
  runnel::fuzz::CheckTools(request);
  runnel::fuzz::CheckMessages(request);
  // All strings must be UTF-8, otherwise the service could not parse the message.
  runnel::v1::GenerateRequest again;
  FUZZ_CHECK(again.ParseFromString(request.SerializeAsString()));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  runnel::fuzz::CheckSlices(body);
  const auto request = runnel::bridge::ParseStreamRequest(body);
  if (request.ok()) {
    CheckRequest(request->request);
  } else {
    FUZZ_CHECK(request.status().code() == absl::StatusCode::kInvalidArgument);
  }
  return 0;
}
