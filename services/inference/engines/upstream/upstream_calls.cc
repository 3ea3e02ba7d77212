#include "services/inference/engines/upstream/upstream_calls.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/request_limits.h"
#include "services/base/strings.h"
#include "services/inference/generation/part_piece.h"

namespace runnel::inference {
namespace {

// FNV-1a, 64 bits.
uint64_t Hash(std::string_view bytes, uint64_t hash = 0xcbf29ce484222325) {
  for (const char c : bytes) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash;
}

// An id for a call to which the server gave none. The same for the same response, and another one in other responses.
std::string MadeUpId(std::string_view response_id, uint32_t choice, uint32_t number) {
  const uint64_t hash = Hash(absl::StrCat(choice, ".", number), Hash(response_id));
  return absl::StrCat("call_", absl::Hex(hash, absl::kZeroPad16));
}

}  // namespace

std::optional<UpstreamCalls::Piece> UpstreamCalls::Add(const UpstreamFragment& fragment, uint32_t choice,
                                                       std::string_view response_id) {
  Call* call = Find(fragment);
  if (call == nullptr) {
    if (calls_.size() == base::kMaxToolCalls) {
      error_ = Error::kTooMany;
      return std::nullopt;
    }
    call = &calls_.emplace_back();
    call->index = fragment.call_index;
    call->server_id = fragment.call_id;
  }
  last_ = call;
  const std::string arguments = call->joiner.Add(fragment.bytes);
  call->checker.Add(arguments);
  if (call->number.has_value()) {
    if (arguments.empty()) return std::nullopt;
    return Piece{*call->number, nullptr, arguments};
  }
  call->held += arguments;
  if (fragment.call_name.empty() || !Open(fragment, choice, response_id, call)) return std::nullopt;
  return Piece{*call->number, &call->opening, std::exchange(call->held, {})};
}

bool UpstreamCalls::Open(const UpstreamFragment& fragment, uint32_t choice, std::string_view response_id, Call* call) {
  call->opening.name = ToValidUtf8(fragment.call_name);
  if (!IsValidCallName(call->opening.name)) {
    error_ = Error::kInvalidName;
    return false;
  }
  call->number = opened_++;
  if (call->server_id.empty()) call->server_id = fragment.call_id;
  const std::string id = ToValidUtf8(call->server_id);
  call->opening.id = IsValidCallName(id) ? id : MadeUpId(response_id, choice, *call->number);
  return true;
}

UpstreamCalls::Call* UpstreamCalls::Find(const UpstreamFragment& fragment) {
  if (fragment.call_index.has_value()) return FindByIndex(fragment);
  const std::string& id = fragment.call_id;
  const auto found =
      std::find_if(calls_.begin(), calls_.end(), [&](const Call& call) { return !id.empty() && call.server_id == id; });
  if (found != calls_.end()) return &*found;
  return last_ != nullptr && Continues(*last_, fragment) ? last_ : nullptr;
}

UpstreamCalls::Call* UpstreamCalls::FindByIndex(const UpstreamFragment& fragment) {
  // The last one with the index, of several.
  const auto found =
      std::find_if(calls_.rbegin(), calls_.rend(), [&](const Call& call) { return call.index == fragment.call_index; });
  if (found == calls_.rend() || !Continues(*found, fragment)) return nullptr;
  return &*found;
}

bool UpstreamCalls::Continues(const Call& call, const UpstreamFragment& fragment) const {
  if (fragment.call_name.empty() || !call.number.has_value()) return true;
  const bool same_name = ToValidUtf8(fragment.call_name) == call.opening.name;
  if (!fragment.call_id.empty() && fragment.call_id == call.server_id) return same_name;
  if (!fragment.call_id.empty() && !call.server_id.empty()) return false;
  return same_name && !(call.checker.complete() && !fragment.bytes.empty());
}

std::vector<UpstreamCalls::Piece> UpstreamCalls::Finish() {
  std::vector<Piece> pieces;
  for (Call& call : calls_) {
    if (!call.number.has_value()) {
      error_ = Error::kInvalidName;
      continue;
    }
    if (std::string rest = call.joiner.Flush(); !rest.empty()) {
      pieces.push_back({*call.number, nullptr, std::move(rest)});
    }
  }
  return pieces;
}

}  // namespace runnel::inference
