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

// The keys in a file, one a line: the key, and after spaces the name of its principal, up to 64 printable characters.
// Without a name a key is a principal of its own. Several keys of one name, such as an old and a new one, open the same
// generations. Empty lines and lines that begin with # do not count. NotFound if the file cannot be read,
// InvalidArgument if it has no key, or a line that is none.
absl::StatusOr<std::vector<ApiKey>> ReadApiKeys(const std::string& path);

// Counts the keys without a name that are so short that their principal, for example in a log of the service, gives
// them away.
size_t CountGuessableKeys(const std::vector<ApiKey>& keys);

using Digest = std::array<unsigned char, SHA256_DIGEST_LENGTH>;
Digest Sha256(std::string_view text);

}  // namespace runnel::bridge
