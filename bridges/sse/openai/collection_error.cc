#include "bridges/sse/openai/collection_error.h"

namespace runnel::sse {

std::optional<bridge::HttpError> CollectionError(const GenerationCollector& collector, openai::OpenAiApi api) {
  if (collector.too_large()) return openai::ErrorOfTooLarge();
  if (!collector.opened()) return openai::OpenAiErrorOf(collector.status(), api);
  if (collector.collected().failed.has_value()) return openai::ErrorOfFailed(*collector.collected().failed);
  if (!collector.collected().done.has_value()) return openai::ErrorOfBroken();
  return std::nullopt;
}

}  // namespace runnel::sse
