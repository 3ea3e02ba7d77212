#pragma once

#include <cstddef>
#include <cstdint>

// The limits of a GenerateRequest that inference.proto documents. The service enforces them; the bridges check the same
// values first, so that a client gets an error in the names of its own API. Sizes are in bytes of UTF-8.
namespace runnel::base {

inline constexpr uint32_t kMaxChoices = 8;
inline constexpr size_t kMaxStops = 4;
inline constexpr size_t kMaxStopBytes = 128;
inline constexpr size_t kMaxRequestIdBytes = 128;
inline constexpr size_t kMaxPrincipalBytes = 128;
inline constexpr size_t kMaxAnnotationBytes = size_t{16} << 10;
inline constexpr size_t kMaxMetadataPairs = 16;
inline constexpr size_t kMaxMetadataKeyBytes = 64;
inline constexpr size_t kMaxMetadataValueBytes = 512;
inline constexpr size_t kMaxExtraFields = 32;
inline constexpr size_t kMaxExtraNameBytes = 64;
inline constexpr size_t kMaxExtraBytes = size_t{64} << 10;  // of all values together
inline constexpr uint32_t kMaxTopLogprobs = 20;
inline constexpr size_t kMaxLogitBiases = 1024;
inline constexpr float kMaxLogitBias = 100;
inline constexpr size_t kMaxSchemaBytes = size_t{32} << 10;
// Limited because code that walks a schema is recursive.
inline constexpr int kMaxSchemaDepth = 64;

// Tools, and the parts of messages.
inline constexpr size_t kMaxTools = 512;
inline constexpr size_t kMaxToolsBytes = size_t{1} << 20;        // of all names, descriptions and schemas together
inline constexpr size_t kMaxToolSchemaBytes = size_t{64} << 10;  // of each
inline constexpr size_t kMaxReasoningEffortBytes = 32;
inline constexpr size_t kMaxContentParts = 1024;
inline constexpr size_t kMaxImageDetailBytes = 16;

// Limits of a choice's output; kMaxToolCalls also of the calls in a message.
inline constexpr uint32_t kMaxParts = 1024;
inline constexpr uint32_t kMaxToolCalls = 128;
// The id and the name of a tool call, and the name of a tool.
inline constexpr size_t kMaxCallNameBytes = 256;

// Limits that only the bridges enforce.
inline constexpr size_t kMaxMessages = 4096;
inline constexpr size_t kMaxModelBytes = 256;
// Each of traceparent and tracestate.
inline constexpr size_t kMaxTraceBytes = 512;

}  // namespace runnel::base
