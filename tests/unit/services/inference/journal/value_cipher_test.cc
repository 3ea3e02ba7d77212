#include "services/inference/journal/value_cipher.h"

#include <gtest/gtest.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <sys/stat.h>

#include <fstream>
#include <memory>
#include <set>
#include <string>
#include <string_view>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace runnel::inference {
namespace {

constexpr char kOldKey[] = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
constexpr char kNewKey[] = "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4";

std::string WriteKeys(const std::string& text, mode_t mode = 0600) {
  const std::string path = ::testing::TempDir() + "/log_keys";
  std::ofstream(path) << text;
  chmod(path.c_str(), mode);
  return path;
}

std::unique_ptr<ValueCipher> CipherOf(const std::string& text) {
  auto cipher = ValueCipher::Create(WriteKeys(text));
  EXPECT_TRUE(cipher.ok()) << cipher.status();
  return *std::move(cipher);
}

TEST(ValueCipher, DecryptsWhatItHasEncrypted) {
  const auto cipher = CipherOf(kNewKey);
  EXPECT_TRUE(cipher->encrypts());
  for (const size_t size : {0, 1, 15, 16, 17, 1000, 1 << 20}) {
    const std::string value(size, 'v');
    const std::string encrypted = cipher->Encrypt("gen_a", "e", value);
    EXPECT_EQ(encrypted.size(), size + ValueCipher::kOverhead);
    EXPECT_EQ(encrypted.find("vvvv"), std::string::npos);
    const auto decrypted = cipher->Decrypt("gen_a", "e", encrypted);
    ASSERT_TRUE(decrypted.ok()) << decrypted.status();
    EXPECT_TRUE(*decrypted == value);
  }
}

TEST(ValueCipher, TwoEncryptionsOfTheSameValueDiffer) {
  const auto cipher = CipherOf(kNewKey);
  std::set<std::string> values, nonces;
  for (int i = 0; i < 1000; ++i) {
    const std::string encrypted = cipher->Encrypt("gen_a", "e", "the same");
    values.insert(encrypted.substr(13));
    nonces.insert(encrypted.substr(1, 12));
  }
  EXPECT_EQ(values.size(), 1000u);
  EXPECT_EQ(nonces.size(), 1000u);
}

TEST(ValueCipher, FindsEachChangedOrMissingByte) {
  const auto cipher = CipherOf(absl::StrCat(kNewKey, "\n", kOldKey));
  const std::string encrypted = cipher->Encrypt("gen_a", "e", "a value");
  for (size_t i = 0; i < encrypted.size(); ++i) {
    for (const int bit : {0, 7}) {
      std::string changed = encrypted;
      changed[i] = static_cast<char>(changed[i] ^ (1 << bit));
      EXPECT_FALSE(cipher->Decrypt("gen_a", "e", changed).ok()) << i;
    }
    EXPECT_EQ(cipher->Decrypt("gen_a", "e", encrypted.substr(0, i)).status().code(), absl::StatusCode::kDataLoss) << i;
  }
  EXPECT_EQ(cipher->Decrypt("gen_a", "e", encrypted + "x").status().code(), absl::StatusCode::kDataLoss);
  EXPECT_TRUE(cipher->Decrypt("gen_a", "e", encrypted).ok());
}

TEST(ValueCipher, AValueBelongsToItsPlace) {
  const auto cipher = CipherOf(kNewKey);
  const std::string encrypted = cipher->Encrypt("gen_a", "e", "a value");
  EXPECT_TRUE(cipher->Decrypt("gen_a", "e", encrypted).ok());
  EXPECT_FALSE(cipher->Decrypt("gen_b", "e", encrypted).ok());
  EXPECT_FALSE(cipher->Decrypt("gen_a", "d", encrypted).ok());
  EXPECT_FALSE(cipher->Decrypt("gen_", "ae", encrypted).ok());
  EXPECT_FALSE(cipher->Decrypt("gen_ae", "", encrypted).ok());
}

TEST(ValueCipher, KeysAreReplacedInSteps) {
  const auto old_only = CipherOf(kOldKey);
  const auto old_first = CipherOf(absl::StrCat("# since May\n\n", kOldKey, "\r\n  ", kNewKey, "  \n"));
  const auto new_first = CipherOf(absl::StrCat(kNewKey, "\n", kOldKey, "\n"));
  const auto new_only = CipherOf(kNewKey);
  const std::string by_old = old_only->Encrypt("gen_a", "e", "old");
  const std::string by_new = new_first->Encrypt("gen_a", "e", "new");
  EXPECT_EQ(*old_first->Decrypt("gen_a", "e", by_old), "old");
  EXPECT_EQ(*old_first->Decrypt("gen_a", "e", by_new), "new");
  EXPECT_EQ(*new_first->Decrypt("gen_a", "e", by_old), "old");
  EXPECT_EQ(*new_only->Decrypt("gen_a", "e", by_new), "new");
  EXPECT_EQ(new_only->Decrypt("gen_a", "e", by_old).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(old_only->Decrypt("gen_a", "e", by_new).status().code(), absl::StatusCode::kDataLoss);
  // Whatever the step, a replica finds the names that another one gives.
  EXPECT_EQ(old_only->NameOf("request"), old_first->NameOf("request"));
  EXPECT_EQ(old_first->OtherNamesOf("request"), std::vector<std::string>({new_first->NameOf("request")}));
  EXPECT_EQ(new_first->OtherNamesOf("request"), std::vector<std::string>({old_first->NameOf("request")}));
  EXPECT_EQ(new_first->NameOf("request"), new_only->NameOf("request"));
  EXPECT_TRUE(new_only->OtherNamesOf("request").empty());
}

TEST(ValueCipher, NamesDependOnTheKey) {
  const auto none = ValueCipher::Create("");
  ASSERT_TRUE(none.ok());
  // The first half of the SHA-256 of "abc".
  EXPECT_EQ((*none)->NameOf("abc"), "ba7816bf8f01cfea414140de5dae2223");
  EXPECT_TRUE((*none)->OtherNamesOf("abc").empty());
  const auto cipher = CipherOf(kNewKey);
  EXPECT_EQ(cipher->NameOf("abc").size(), 32u);
  EXPECT_NE(cipher->NameOf("abc"), (*none)->NameOf("abc"));
  EXPECT_NE(cipher->NameOf("abc"), cipher->NameOf("abd"));
  EXPECT_NE(cipher->NameOf("abc"), CipherOf(kOldKey)->NameOf("abc"));
}

TEST(ValueCipher, WithoutAKeyFileValuesStayAsTheyAre) {
  const auto cipher = ValueCipher::Create("");
  ASSERT_TRUE(cipher.ok());
  EXPECT_FALSE((*cipher)->encrypts());
  EXPECT_EQ((*cipher)->Encrypt("gen_a", "e", "a value"), "a value");
  EXPECT_EQ(*(*cipher)->Decrypt("gen_a", "e", "a value"), "a value");
}

TEST(ValueCipher, RejectsValuesThatAreNotEncrypted) {
  const auto cipher = CipherOf(kNewKey);
  EXPECT_EQ(cipher->Decrypt("gen_a", "e", "a value in plain text, long enough to be one").status().code(),
            absl::StatusCode::kDataLoss);
  EXPECT_EQ(cipher->Decrypt("gen_a", "e", "").status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(cipher->Decrypt("gen_a", "e", "\xc2" + std::string(40, 'x')).status().code(),
            absl::StatusCode::kUnimplemented);
}

// Another program could read the values: AES-256-GCM under OpenSSL's own HKDF.
TEST(ValueCipher, UsesTheDocumentedFormat) {
  const std::string encrypted = CipherOf(kNewKey)->Encrypt("gen_a", "e", "a value");
  std::string master = absl::HexStringToBytes(kNewKey), info = "runnel log value gen_a", digest = "SHA256";
  std::string key(32, '\0');
  EVP_KDF* const kdf = EVP_KDF_fetch(nullptr, "HKDF", nullptr);
  EVP_KDF_CTX* const context = EVP_KDF_CTX_new(kdf);
  const OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest.data(), digest.size()),
                               OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, master.data(), master.size()),
                               OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, info.data(), info.size()),
                               OSSL_PARAM_construct_end()};
  ASSERT_EQ(EVP_KDF_derive(context, reinterpret_cast<unsigned char*>(key.data()), key.size(), params), 1);
  EVP_KDF_CTX_free(context);
  EVP_KDF_free(kdf);

  const auto bytes = [](const std::string& text) { return reinterpret_cast<const unsigned char*>(text.data()); };
  EVP_CIPHER_CTX* const cipher = EVP_CIPHER_CTX_new();
  const std::string place =
      "\xc1"
      "5:gen_ae";
  std::string tag = encrypted.substr(encrypted.size() - 16), value(7, '\0');
  int size = 0;
  EXPECT_EQ(EVP_DecryptInit_ex(cipher, EVP_aes_256_gcm(), nullptr, bytes(key), bytes(encrypted) + 1), 1);
  EXPECT_EQ(EVP_DecryptUpdate(cipher, nullptr, &size, bytes(place), static_cast<int>(place.size())), 1);
  EXPECT_EQ(EVP_DecryptUpdate(cipher, reinterpret_cast<unsigned char*>(value.data()), &size, bytes(encrypted) + 13, 7),
            1);
  EXPECT_EQ(EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_GCM_SET_TAG, 16, tag.data()), 1);
  EXPECT_EQ(EVP_DecryptFinal_ex(cipher, reinterpret_cast<unsigned char*>(value.data()) + size, &size), 1);
  EVP_CIPHER_CTX_free(cipher);
  EXPECT_EQ(value, "a value");
}

TEST(ValueCipher, RejectsKeyFilesThatAreNotSafe) {
  const std::string good = kNewKey;
  const struct {
    std::string text, part;
    mode_t mode = 0600;
  } rows[] = {
      {"", "has no key"},
      {"# only a comment\n\n", "has no key"},
      {good.substr(1), "line 1 is not a key of 64 hexadecimal digits"},
      {good + "0", "line 1 is not a key"},
      {"0x" + good.substr(2), "line 1 is not a key"},
      {good.substr(0, 32), "line 1 is not a key"},
      {good + "\n" + good.substr(0, 63) + "g", "line 2 is not a key"},
      {good + " " + good, "line 1 is not a key"},
      {std::string(32, '\x11'), "line 1 is not a key"},
      {std::string(64, '0'), "line 1 is not a random key"},
      {"00112233445566770011223344556677001122334455667700112233445566"
       "77",
       "line 1 is not a random key"},
      {good + "\n\n" + good, "line 3 repeats a key"},
      {std::string(20000, '\n'), "larger than"},
      {good, "may be used by everyone", 0644},
      {good, "may be used by everyone", 0604},
      {good, "may be used by everyone", 0602},
  };
  for (const auto& row : rows) {
    const auto cipher = ValueCipher::Create(WriteKeys(row.text, row.mode));
    ASSERT_EQ(cipher.status().code(), absl::StatusCode::kInvalidArgument) << row.part;
    const std::string message(cipher.status().message());
    EXPECT_NE(message.find(row.part), std::string::npos) << message;
    EXPECT_TRUE(message.starts_with("--log_key_file: ")) << message;
    EXPECT_EQ(message.find(good.substr(2, 20)), std::string::npos) << message;
  }
  std::string many;
  for (int i = 0; i < 17; ++i) absl::StrAppend(&many, absl::Hex(i + 16), good.substr(2), "\n");
  EXPECT_NE(ValueCipher::Create(WriteKeys(many)).status().message().find("more than 16 keys"), std::string::npos);
  EXPECT_NE(ValueCipher::Create("/nonexistent").status().message().find("not a readable file"), std::string::npos);
  EXPECT_NE(ValueCipher::Create(::testing::TempDir()).status().message().find("not a readable file"),
            std::string::npos);
  EXPECT_TRUE(ValueCipher::Create(WriteKeys(good, 0640)).ok());
}

}  // namespace
}  // namespace runnel::inference
