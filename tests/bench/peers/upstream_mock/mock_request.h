#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "tests/bench/peers/upstream_mock/numbered_token.h"

namespace runnel::bench {

// The longest head and body that the mock server reads.
inline constexpr size_t kMaxHeadBytes = size_t{64} << 10;
inline constexpr size_t kMaxBodyBytes = size_t{1} << 20;

// The head of an HTTP request.
struct MockHead {
  std::string method;
  std::string path;
  bool http10 = false;
  bool close = false;  // the client closes the connection after the response
  size_t body_bytes = 0;
};

enum class MockParse { kPartial, kComplete, kInvalid };

// Removes a request from the front of `in`. kInvalid: it is malformed, too long, or has a body without content-length.
MockParse TakeRequest(std::string* in, MockHead* head, std::string* body);

// A request for a stream.
struct MockRequest {
  bool chat = false;  // otherwise /v1/completions
  bool include_usage = false;
  std::string model;
  MockPlan plan;
};

// Reads the body of POST /v1/chat/completions or /v1/completions. Returns an empty string, or what is wrong.
std::string ReadMockRequest(const std::string& body, bool chat, MockRequest* request);

}  // namespace runnel::bench
