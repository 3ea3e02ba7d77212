#include "bridges/base/api_keys.h"

#include <algorithm>
#include <fstream>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace runnel::bridge {
namespace {

constexpr size_t kMaxNameBytes = 64;
// A shorter key has fewer than 96 bits, even if it is random base64.
constexpr size_t kGuessableKeyBytes = 16;
constexpr absl::string_view kByteOrderMark = "\xEF\xBB\xBF";

bool IsPrintable(const std::string& text) { return std::all_of(text.begin(), text.end(), absl::ascii_isgraph); }

bool IsPrincipal(const std::string& name) { return name.size() <= kMaxNameBytes && IsPrintable(name); }

// The same in every bridge and after a restart, so that a client finds its generations again. It therefore depends on
// the key alone, and a weak key can be guessed from it. CountGuessableKeys is the remedy: with a slower or longer
// derivation, bridges of two versions would disagree while one replaces the other.
std::string PrincipalOfKey(const std::string& key) {
  const Digest digest = Sha256(key);
  // The result fits into a string without an allocation.
  constexpr size_t kDigestBytes = 7;
  return absl::StrCat("k", absl::BytesToHexString({reinterpret_cast<const char*>(digest.data()), kDigestBytes}));
}

}  // namespace

Digest Sha256(std::string_view text) {
  Digest digest;
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest.data());
  return digest;
}

size_t CountGuessableKeys(const std::vector<ApiKey>& keys) {
  return static_cast<size_t>(std::count_if(
      keys.begin(), keys.end(), [](const ApiKey& key) { return !key.named && key.key.size() < kGuessableKeyBytes; }));
}

absl::StatusOr<std::vector<ApiKey>> ReadApiKeys(const std::string& path) {
  std::ifstream file(path);
  if (!file) return absl::NotFoundError(absl::StrCat("--api_keys_file: cannot read '", path, "'"));
  std::vector<ApiKey> keys;
  size_t number = 0;
  for (std::string line; std::getline(file, line);) {
    // Some editors begin a file with it. As part of the first key it would never match.
    if (++number == 1 && absl::StartsWith(line, kByteOrderMark)) line.erase(0, kByteOrderMark.size());
    absl::StripAsciiWhitespace(&line);
    if (line.empty() || line.front() == '#') continue;
    const std::vector<std::string> parts = absl::StrSplit(line, absl::ByAnyChar(" \t"), absl::SkipEmpty());
    if (parts.size() > 2 || !IsPrintable(parts[0]) || (parts.size() == 2 && !IsPrincipal(parts[1]))) {
      return absl::InvalidArgumentError(
          absl::StrCat("--api_keys_file: line ", number, " of '", path,
                       "' is malformed: expected a key, optionally followed by a "
                       "name of up to ",
                       kMaxNameBytes, " characters, both in printable ASCII, in an ASCII or UTF-8 file"));
    }
    const bool named = parts.size() == 2;
    keys.push_back({parts[0], named ? parts[1] : PrincipalOfKey(parts[0]), named});
  }
  if (keys.empty())
    return absl::InvalidArgumentError(absl::StrCat("--api_keys_file: '", path, "' has no key: add one per line"));
  return keys;
}

}  // namespace runnel::bridge
