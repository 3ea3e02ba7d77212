#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace runnel::inference {

// Encrypts the values of the shared log, and names keys after secrets. Immutable, so every thread may use it.
//
// With a key file each value is encrypted by AES-256-GCM. The key of a generation is derived from a master key by
// HKDF-SHA256 with the generation's id. A stored value is
//
//   byte 0        0xC1, the version
//   bytes 1..12   a random nonce, so that two encryptions of the same value differ
//   the rest      the ciphertext and 16 bytes of tag
//
// The generation's id and the name of the key that holds the value are authenticated with it: a value that was moved to
// another key does not decrypt. Without a key file values are stored as they are. A replica with a key file accepts no
// value that is not encrypted, because anyone who can write to the store could have made it.
class ValueCipher {
 public:
  // Bytes that Encrypt adds.
  static constexpr size_t kOverhead = 1 + 12 + 16;

  // `key_file`: one line for each master key, 64 hexadecimal digits, for example of `openssl rand -hex 32`. Empty lines
  // and lines that begin with # are ignored. The first key encrypts, all of them decrypt. To replace a key: put the new
  // one behind the old one on all replicas, then in front of it on all replicas, and remove the old one once all that
  // it encrypted has expired. An empty path: no encryption. InvalidArgument, without anything of the file's content, if
  // the file cannot be read, if others than its owner and group have access to it, or if a key is malformed, given
  // twice, or of so few different bytes that it is not random.
  static absl::StatusOr<std::unique_ptr<ValueCipher>> Create(const std::string& key_file);
  ~ValueCipher();
  ValueCipher(const ValueCipher&) = delete;
  ValueCipher& operator=(const ValueCipher&) = delete;

  bool encrypts() const;
  // `id` is the generation's, `name` that of the key or field that holds the value.
  std::string Encrypt(std::string_view id, std::string_view name, std::string_view value) const;
  // DataLoss if the value is not intact, not of this place, or encrypted under a key that the file does not have.
  // Unimplemented if a newer release wrote it.
  absl::StatusOr<std::string> Decrypt(std::string_view id, std::string_view name, std::string_view value) const;

  // 32 hexadecimal digits that stand for `text` in the name of a key: an HMAC-SHA256 under a key that is derived from
  // the first master key. Without a key file a plain SHA-256: everyone who can read the store can then test guesses.
  std::string NameOf(std::string_view text) const;
  // The same under the other master keys: names that were given before a key was replaced, or that a replica gives that
  // has read another version of the file. Look for these too before `text` counts as unknown.
  std::vector<std::string> OtherNamesOf(std::string_view text) const;

 private:
  struct Keys;

  explicit ValueCipher(std::unique_ptr<const Keys> keys);

  const std::unique_ptr<const Keys> keys_;
};

}  // namespace runnel::inference
