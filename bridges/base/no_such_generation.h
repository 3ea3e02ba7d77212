#pragma once

#include <string_view>

#include "absl/status/status.h"
#include "services/base/grpc_status.h"

namespace runnel::bridge {

// NotFound (GENERATION_NOT_FOUND). The same for an id that is malformed, unknown, or owned by another principal.
inline absl::Status NoSuchGeneration(std::string_view message = "no such generation") {
  return base::MakeError(absl::StatusCode::kNotFound, "GENERATION_NOT_FOUND", message);
}

}  // namespace runnel::bridge
