#pragma once

#include <cstddef>

// Message sizes on which the inference service and its clients agree. A gRPC message above its receiver's limit ends
// the whole call, and with a Link all of its streams: so the sender checks the size first, and only one request fails.
namespace runnel::base {

// gRPC's default limit. Every response stays below it, so that clients need no setting. It is also the limit of
// requests to a service that does not announce one (LinkHello.max_request_bytes).
inline constexpr size_t kGrpcDefaultMessageBytes = size_t{4} << 20;

// The range of --max_request_bytes. The bridges' limits for bodies and messages have the same maximum.
inline constexpr size_t kMinRequestBytes = size_t{64} << 10;
inline constexpr size_t kMaxRequestBytes = size_t{64} << 20;

// The limit of text in the response of GetGeneration; a longer text has to be read as a stream.
inline constexpr size_t kMaxUnaryTextBytes = size_t{3} << 20;
// The limit of kept input in one such response, whose text then has so much less.
inline constexpr size_t kMaxInputPieceBytes = size_t{512} << 10;

// Limits of one response of a Link: the text of a batch, plus the text of an attachment that exceeds it, plus an event
// that exceeds that. With their framing they stay below kGrpcDefaultMessageBytes.
inline constexpr size_t kMaxBatchBytes = size_t{1} << 20;
inline constexpr size_t kMaxAttachmentBytes = size_t{512} << 10;
inline constexpr size_t kMaxEventBytes = size_t{512} << 10;

}  // namespace runnel::base
