#pragma once

#include <cstdint>
#include <string>

#include "runnel/v1/inference.pb.h"

namespace runnel::bridge {

// What the service reports about a generation when a reader attaches to it.
struct GenerationInfo {
  std::string model;
  v1::GenerationStatus status = v1::GENERATION_STATUS_UNSPECIFIED;  // at that moment, like last_seq
  uint64_t last_seq = 0;
  bool existing = false;  // it existed before: an attach, or a repeated request_id
  std::string annotation;
};

}  // namespace runnel::bridge
