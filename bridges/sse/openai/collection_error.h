#pragma once

#include <optional>

#include "bridges/openai/openai_error.h"
#include "bridges/sse/stream/generation_collector.h"

namespace runnel::sse {

// The error to respond with, unless `collector` has a whole generation.
std::optional<bridge::HttpError> CollectionError(const GenerationCollector& collector, openai::OpenAiApi api);

}  // namespace runnel::sse
