#include "services/inference/generation/logprob_store.h"

#include <algorithm>
#include <cstring>
#include <string_view>

#include "services/inference/generation/packed_number.h"

namespace runnel::inference {
namespace {

// In addition to the token: tags, lengths and the number.
constexpr size_t kWireOverheadBytes = 12;

void PackToken(const TokenLogprob& token, std::string* out) {
  PackNumber(token.token.size(), out);
  out->append(token.token);
  char number[sizeof(float)];
  std::memcpy(number, &token.logprob, sizeof(number));
  out->append(number, sizeof(number));
}

TokenLogprob UnpackToken(std::string_view* in) {
  TokenLogprob token;
  const size_t length = UnpackNumber(in);
  token.token = std::string(in->substr(0, length));
  in->remove_prefix(length);
  std::memcpy(&token.logprob, in->data(), sizeof(float));
  in->remove_prefix(sizeof(float));
  return token;
}

size_t WireBytesOf(const TokenLogprob& token) {
  size_t bytes = kWireOverheadBytes + token.token.size();
  for (const TokenLogprob& each : token.top) bytes += kWireOverheadBytes + each.token.size();
  return bytes;
}

}  // namespace

void LogprobStore::Add(size_t delta, std::span<const TokenLogprob> logprobs) {
  ends_.resize(delta, packed_.size());
  for (const TokenLogprob& token : logprobs) {
    PackToken(token, &packed_);
    PackNumber(token.top.size(), &packed_);
    for (const TokenLogprob& each : token.top) PackToken(each, &packed_);
  }
  ends_.push_back(packed_.size());
}

std::vector<TokenLogprob> LogprobStore::Get(size_t first, size_t end) const {
  const size_t begin = BeginOf(first);
  std::string_view rest = std::string_view(packed_).substr(begin, BeginOf(end) - begin);
  std::vector<TokenLogprob> logprobs;
  while (!rest.empty()) {
    logprobs.push_back(UnpackToken(&rest));
    for (size_t left = UnpackNumber(&rest); left > 0; --left) logprobs.back().top.push_back(UnpackToken(&rest));
  }
  return logprobs;
}

size_t LogprobStore::WireBytes(size_t first, size_t end) const {
  // A packed token has at least six bytes, to which the wire adds at most twice as many.
  return 3 * (BeginOf(end) - BeginOf(first));
}

size_t LogprobStore::bytes() const {
  return sizeof(LogprobStore) + packed_.capacity() + ends_.capacity() * sizeof(size_t);
}

size_t LogprobStore::BeginOf(size_t delta) const {
  if (delta == 0) return 0;
  return delta <= ends_.size() ? ends_[delta - 1] : packed_.size();
}

size_t ContentBytes(const Delta& delta) {
  size_t bytes = delta.text.size();
  for (const TokenLogprob& token : delta.logprobs) bytes += WireBytesOf(token);
  if (delta.call != nullptr) bytes += delta.call->id.size() + delta.call->name.size();
  return bytes;
}

}  // namespace runnel::inference
