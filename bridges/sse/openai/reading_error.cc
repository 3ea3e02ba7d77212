#include "bridges/sse/openai/reading_error.h"

namespace runnel::sse {

std::optional<bridge::HttpError> ErrorOfReading(const CollectingReader& reader, openai::OpenAiApi api) {
  if (reader.too_large()) return openai::ErrorOfTooLarge();
  if (!reader.opened()) return openai::OpenAiErrorOf(reader.status(), api);
  if (reader.collected().failed.has_value()) return openai::ErrorOfFailed(*reader.collected().failed);
  if (!reader.collected().done.has_value()) return openai::ErrorOfBroken();
  return std::nullopt;
}

}  // namespace runnel::sse
