#include "services/inference/journal/value_cipher.h"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bitset>
#include <cstdint>
#include <new>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "services/base/status_macros.h"
#include "services/base/strings.h"
#include "services/base/unique_fd.h"

namespace runnel::inference {
namespace {

constexpr size_t kKeyBytes = 32;
constexpr size_t kNonceBytes = 12;
constexpr size_t kTagBytes = 16;
constexpr size_t kNameBytes = 16;
constexpr size_t kMaxKeys = 16;
constexpr size_t kMaxFileBytes = 16 << 10;
// 32 random bytes have about 30 different values; fewer than 16 of them never happens.
constexpr size_t kMinDifferentBytes = 16;
// The first byte of a value: the upper half says that it is encrypted, the lower half the version.
constexpr uint8_t kEncrypted = 0xC0, kVersion = 1;

using Bytes = std::array<uint8_t, kKeyBytes>;

const uint8_t* ToBytes(std::string_view text) { return reinterpret_cast<const uint8_t*>(text.data()); }

// Looking an algorithm up costs as much as encrypting a short value. Never freed.
const EVP_CIPHER* Aes256Gcm() {
  static const EVP_CIPHER* const cipher = EVP_CIPHER_fetch(nullptr, "AES-256-GCM", nullptr);
  if (cipher == nullptr) throw std::bad_alloc();
  return cipher;
}
const EVP_MD* Sha256() {
  static const EVP_MD* const digest = EVP_MD_fetch(nullptr, "SHA256", nullptr);
  if (digest == nullptr) throw std::bad_alloc();
  return digest;
}

Bytes Hmac(const Bytes& key, std::string_view text) {
  Bytes hash;
  unsigned int size = 0;
  if (HMAC(Sha256(), key.data(), static_cast<int>(key.size()), ToBytes(text), text.size(), hash.data(), &size) ==
      nullptr) {
    throw std::bad_alloc();
  }
  return hash;
}

// RFC 5869, for as many bytes as the hash has.
Bytes HkdfExtract(const Bytes& master) {
  return Hmac(Bytes{}, std::string_view(reinterpret_cast<const char*>(master.data()), master.size()));
}
Bytes HkdfExpand(const Bytes& pseudorandom, std::string_view purpose, std::string_view context) {
  return Hmac(pseudorandom, absl::StrCat(base::ToAbsl(purpose), base::ToAbsl(context), absl::string_view("\1", 1)));
}

std::string ToName(const uint8_t* hash) {
  return absl::BytesToHexString(absl::string_view(reinterpret_cast<const char*>(hash), kNameBytes));
}

// What is authenticated besides the value. No two places have the same.
std::string Place(uint8_t version, std::string_view id, std::string_view name) {
  return absl::StrCat(absl::string_view(reinterpret_cast<const char*>(&version), 1), id.size(), ":", base::ToAbsl(id),
                      base::ToAbsl(name));
}

// Of the calling thread, because making one costs as much as encrypting a short value.
EVP_CIPHER_CTX* Context() {
  thread_local const std::unique_ptr<EVP_CIPHER_CTX, decltype(&EVP_CIPHER_CTX_free)> context(EVP_CIPHER_CTX_new(),
                                                                                             &EVP_CIPHER_CTX_free);
  if (context == nullptr) throw std::bad_alloc();
  return context.get();
}

absl::Status BadFile(const std::string& file, absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("--log_key_file: '", file, "' ", why));
}

absl::StatusOr<std::string> ReadKeyFile(const std::string& file) {
  const base::UniqueFd fd(open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat info {};
  if (!fd || fstat(fd.get(), &info) != 0 || !S_ISREG(info.st_mode)) return BadFile(file, "is not a readable file");
  if ((info.st_mode & S_IRWXO) != 0) {
    return BadFile(file, "may be used by everyone on this machine: chmod o= it");
  }
  std::string text(kMaxFileBytes + 1, '\0');
  const ssize_t got = read(fd.get(), text.data(), text.size());
  text.resize(got > 0 ? static_cast<size_t>(got) : 0);
  if (got < 0) return BadFile(file, "is not a readable file");
  if (text.size() > kMaxFileBytes) return BadFile(file, "is larger than a file of keys can be");
  return text;
}

absl::StatusOr<Bytes> ReadKey(absl::string_view line) {
  if (line.size() != 2 * kKeyBytes || !std::all_of(line.begin(), line.end(), absl::ascii_isxdigit)) {
    return absl::InvalidArgumentError("is not a key of 64 hexadecimal digits");
  }
  std::string text = absl::HexStringToBytes(line);
  Bytes key;
  std::copy(text.begin(), text.end(), key.begin());
  OPENSSL_cleanse(text.data(), text.size());
  std::bitset<256> seen;
  for (const uint8_t byte : key) seen.set(byte);
  if (seen.count() < kMinDifferentBytes) {
    return absl::InvalidArgumentError("is not a random key: make one with openssl rand -hex 32");
  }
  return key;
}

}  // namespace

struct ValueCipher::Keys {
  // What is derived from a master key, which is not kept.
  struct Key {
    Bytes master;  // after HKDF's first step
    Bytes names;
  };

  ~Keys() {
    for (Key& key : all) OPENSSL_cleanse(&key, sizeof key);
  }

  std::vector<Key> all;  // the first encrypts
};

ValueCipher::ValueCipher(std::unique_ptr<const Keys> keys) : keys_(std::move(keys)) {}

ValueCipher::~ValueCipher() = default;

absl::StatusOr<std::unique_ptr<ValueCipher>> ValueCipher::Create(const std::string& key_file) {
  auto keys = std::make_unique<Keys>();
  if (!key_file.empty()) {
    ASSIGN_OR_RETURN(std::string text, ReadKeyFile(key_file));
    // Never moves keys, which would leave copies of them.
    keys->all.reserve(kMaxKeys);
    int number = 0;
    for (absl::string_view line : absl::StrSplit(text, '\n')) {
      ++number;
      line = absl::StripAsciiWhitespace(line);
      if (line.empty() || line.front() == '#') continue;
      absl::StatusOr<Bytes> key = ReadKey(line);
      if (!key.ok()) return BadFile(key_file, absl::StrCat("line ", number, " ", key.status().message()));
      const Bytes master = HkdfExtract(*key);
      OPENSSL_cleanse(key->data(), key->size());
      for (const Keys::Key& other : keys->all) {
        if (other.master == master) return BadFile(key_file, absl::StrCat("line ", number, " repeats a key"));
      }
      if (keys->all.size() == kMaxKeys) return BadFile(key_file, absl::StrCat("has more than ", kMaxKeys, " keys"));
      keys->all.push_back({master, HkdfExpand(master, "runnel log names", "")});
    }
    OPENSSL_cleanse(text.data(), text.size());
    if (keys->all.empty()) return BadFile(key_file, "has no key");
  }
  return std::unique_ptr<ValueCipher>(new ValueCipher(std::move(keys)));
}

bool ValueCipher::encrypts() const { return !keys_->all.empty(); }

std::string ValueCipher::Encrypt(std::string_view id, std::string_view name, std::string_view value) const {
  if (!encrypts()) return std::string(value);
  std::string result(kOverhead + value.size(), '\0');
  auto* const bytes = reinterpret_cast<uint8_t*>(result.data());
  uint8_t* const nonce = bytes + 1;
  uint8_t* const text = nonce + kNonceBytes;
  bytes[0] = kEncrypted | kVersion;
  const std::string place = Place(bytes[0], id, name);
  Bytes key = HkdfExpand(keys_->all.front().master, "runnel log value ", id);
  int size = 0;
  EVP_CIPHER_CTX* const context = Context();
  const bool encrypted =
      RAND_bytes(nonce, kNonceBytes) == 1 &&
      EVP_EncryptInit_ex(context, Aes256Gcm(), nullptr, key.data(), nonce) == 1 &&
      EVP_EncryptUpdate(context, nullptr, &size, ToBytes(place), static_cast<int>(place.size())) == 1 &&
      EVP_EncryptUpdate(context, text, &size, ToBytes(value), static_cast<int>(value.size())) == 1 &&
      EVP_EncryptFinal_ex(context, text + size, &size) == 1 &&
      EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_GET_TAG, kTagBytes, text + value.size()) == 1;
  OPENSSL_cleanse(key.data(), key.size());
  // Without random numbers or memory nothing may be written.
  if (!encrypted) throw std::bad_alloc();
  return result;
}

absl::StatusOr<std::string> ValueCipher::Decrypt(std::string_view id, std::string_view name,
                                                 std::string_view value) const {
  if (!encrypts()) return std::string(value);
  const uint8_t version = value.empty() ? 0 : ToBytes(value)[0];
  if ((version & 0xF0) != kEncrypted) return absl::DataLossError("a value of the shared log is not encrypted");
  if (version != (kEncrypted | kVersion)) {
    return absl::UnimplementedError("a value of the shared log was encrypted by a newer release");
  }
  if (value.size() < kOverhead) return absl::DataLossError("an encrypted value of the shared log is cut off");
  const std::string_view nonce = value.substr(1, kNonceBytes);
  const std::string_view text = value.substr(1 + kNonceBytes, value.size() - kOverhead);
  std::array<uint8_t, kTagBytes> tag;
  std::copy_n(ToBytes(value) + value.size() - kTagBytes, kTagBytes, tag.begin());
  const std::string place = Place(version, id, name);
  EVP_CIPHER_CTX* const context = Context();
  std::string result(text.size(), '\0');
  auto* const bytes = reinterpret_cast<uint8_t*>(result.data());
  for (const Keys::Key& each : keys_->all) {
    Bytes key = HkdfExpand(each.master, "runnel log value ", id);
    int size = 0;
    const bool decrypted =
        EVP_DecryptInit_ex(context, Aes256Gcm(), nullptr, key.data(), ToBytes(nonce)) == 1 &&
        EVP_DecryptUpdate(context, nullptr, &size, ToBytes(place), static_cast<int>(place.size())) == 1 &&
        EVP_DecryptUpdate(context, bytes, &size, ToBytes(text), static_cast<int>(text.size())) == 1 &&
        EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_SET_TAG, kTagBytes, tag.data()) == 1 &&
        EVP_DecryptFinal_ex(context, bytes + size, &size) == 1;
    OPENSSL_cleanse(key.data(), key.size());
    if (decrypted) return result;
  }
  OPENSSL_cleanse(result.data(), result.size());
  return absl::DataLossError(
      "a value of the shared log does not decrypt: it is damaged, or its key is not in --log_key_file");
}

std::string ValueCipher::NameOf(std::string_view text) const {
  if (encrypts()) return ToName(Hmac(keys_->all.front().names, text).data());
  std::array<uint8_t, EVP_MAX_MD_SIZE> hash;
  if (EVP_Digest(text.data(), text.size(), hash.data(), nullptr, Sha256(), nullptr) != 1) throw std::bad_alloc();
  return ToName(hash.data());
}

std::vector<std::string> ValueCipher::OtherNamesOf(std::string_view text) const {
  std::vector<std::string> names;
  for (size_t i = 1; i < keys_->all.size(); ++i) names.push_back(ToName(Hmac(keys_->all[i].names, text).data()));
  return names;
}

}  // namespace runnel::inference
