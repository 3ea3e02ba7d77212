#include "bridges/sse/openai/reading_error.h"

namespace runnel::sse {

std::optional<bridge::HttpError> ErrorOfReading(const CollectingReader& reader, OpenAiApi api) {
  if (reader.too_large()) return ErrorOfTooLarge();
  if (!reader.opened()) return OpenAiErrorOf(reader.status(), api);
  if (reader.collected().failed.has_value()) return ErrorOfFailed(*reader.collected().failed);
  if (!reader.collected().done.has_value()) return ErrorOfBroken();
  return std::nullopt;
}

}  // namespace runnel::sse
