#pragma once

#include <cstddef>

// The sizes of messages that the inference service and those who call it agree on. A gRPC message above its receiver's
// limit ends the whole call, and with a Link all of its streams: so a sender checks first, and fails one request only.
namespace runnel::base {

// What gRPC takes by default. Every response stays below it, so that a client need not set anything. It is also the
// limit of requests to a service that does not announce one (LinkHello.max_request_bytes).
inline constexpr size_t kGrpcDefaultMessageBytes = size_t{4} << 20;

// The range of --max_request_bytes. The bridges' limits for bodies and messages end where it does.
inline constexpr size_t kMinRequestBytes = size_t{64} << 10;
inline constexpr size_t kMaxRequestBytes = size_t{64} << 20;

// The text that GetGeneration gives in its one response; beyond, it is to be read as a stream.
inline constexpr size_t kMaxUnaryTextBytes = size_t{3} << 20;

// Bounds of what a Link puts into one response: the text of a batch, the text of one attachment that exceeds it, and
// one event that exceeds that. With what frames them they stay below kGrpcDefaultMessageBytes.
inline constexpr size_t kMaxBatchBytes = size_t{1} << 20;
inline constexpr size_t kMaxAttachmentBytes = size_t{512} << 10;
inline constexpr size_t kMaxEventBytes = size_t{512} << 10;

}  // namespace runnel::base
