#pragma once

#include <google/protobuf/repeated_ptr_field.h>

#include <cstdint>
#include <string>

#include "runnel/v1/inference.pb.h"

namespace runnel::bridge {

// What the service reports about a generation when a reader attaches to it.
struct GenerationInfo {
  std::string model;
  v1::GenerationStatus status = v1::GENERATION_STATUS_UNSPECIFIED;  // at that moment, like last_seq
  uint64_t last_seq = 0;
  uint32_t epoch = 0;     // of the log at that moment
  bool existing = false;  // it existed before: an attach, or a repeated request_id
  std::string annotation;
  uint64_t after_seq = 0;  // the cursor of the reader
  // The parts opened up to the cursor; none if there is nothing or a single text part.
  google::protobuf::RepeatedPtrField<v1::OpenedPart> parts;
};

}  // namespace runnel::bridge
