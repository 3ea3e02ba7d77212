#pragma once

#include <optional>

#include "bridges/openai/openai_error.h"
#include "bridges/sse/stream/collecting_reader.h"

namespace runnel::sse {

// The error to answer with, if the reading did not end with a whole answer.
std::optional<bridge::HttpError> ErrorOfReading(const CollectingReader& reader, openai::OpenAiApi api);

}  // namespace runnel::sse
