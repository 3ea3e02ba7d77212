#pragma once

#include <openssl/sha.h>

#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace runnel::bridge {

// A bearer key and the principal whose generations it opens.
struct ApiKey {
  std::string key;
  std::string principal;
  bool named = true;  // the file gives the principal
};

// Reads a file with one key per line: the key, and optionally, after spaces, the name of its principal, up to 64
// printable characters. Each key without a name has a separate principal. Several keys with one name, for example an
// old and a new one, open the same generations. Empty lines and lines that begin with # are ignored. NotFound if the
// file cannot be read, InvalidArgument if it has no key or a malformed line.
absl::StatusOr<std::vector<ApiKey>> ReadApiKeys(const std::string& path);

// Counts the keys without a name that are so short that they can be guessed from their principal, which for example a
// log of the service shows.
size_t CountGuessableKeys(const std::vector<ApiKey>& keys);

using Digest = std::array<unsigned char, SHA256_DIGEST_LENGTH>;
Digest Sha256(std::string_view text);

}  // namespace runnel::bridge
