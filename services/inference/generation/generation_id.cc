#include "services/inference/generation/generation_id.h"

#include <sys/random.h>

#include <array>
#include <cstdint>
#include <cstdlib>

namespace runnel::inference {
namespace {

constexpr std::string_view kPrefix = "gen_";
constexpr std::string_view kAlphabet = "abcdefghijklmnopqrstuvwxyz234567";
constexpr size_t kCharacters = 26;  // ceil(128 / 5)
constexpr size_t kReplicaCharacters = 4;

std::string RandomBase32() {
  std::array<uint8_t, 16> bytes;
  // Once the system has booted, reading 16 bytes neither blocks nor returns fewer. Ids must not repeat, so there is no
  // fallback.
  if (getrandom(bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) std::abort();
  std::string id;
  uint32_t buffer = 0;
  int bits = 0;
  for (const uint8_t byte : bytes) {
    buffer = (buffer << 8) | byte;
    for (bits += 8; bits >= 5; bits -= 5) id += kAlphabet[(buffer >> (bits - 5)) & 31];
  }
  id += kAlphabet[(buffer << (5 - bits)) & 31];
  return id;
}

}  // namespace

std::string NewIdPrefix() { return RandomBase32().substr(0, kReplicaCharacters); }

std::string NewGenerationId(std::string_view prefix) {
  return std::string(kPrefix) + RandomBase32().replace(0, kReplicaCharacters, prefix);
}

bool IsGenerationId(std::string_view id) {
  return id.size() == kPrefix.size() + kCharacters && id.substr(0, kPrefix.size()) == kPrefix &&
         id.find_first_not_of(kAlphabet, kPrefix.size()) == std::string_view::npos;
}

bool IsOfReplica(std::string_view id, std::string_view prefix) {
  return IsGenerationId(id) && id.substr(kPrefix.size(), prefix.size()) == prefix;
}

std::string_view PrefixOf(std::string_view id) {
  return IsGenerationId(id) ? id.substr(kPrefix.size(), kReplicaCharacters) : std::string_view();
}

}  // namespace runnel::inference
