#include "services/inference/engines/llama/model_fingerprint.h"

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace runnel::inference {
namespace {

constexpr std::streamoff kPartBytes = std::streamoff{1} << 20;

std::string HexSha256(std::string_view bytes) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int length = 0;
  EVP_Digest(bytes.data(), bytes.size(), digest.data(), &length, EVP_sha256(), nullptr);
  return absl::BytesToHexString(absl::string_view(reinterpret_cast<const char*>(digest.data()), length));
}

}  // namespace

absl::StatusOr<std::string> FileIdentity(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  const std::streamoff size = file.tellg();
  if (!file || size < 0) return absl::NotFoundError(absl::StrCat("cannot read ", path));
  const std::streamoff head = std::min(size, kPartBytes);
  const std::streamoff tail = std::min(size - head, kPartBytes);
  std::string bytes(static_cast<size_t>(head + tail), '\0');
  file.seekg(0).read(bytes.data(), head);
  file.seekg(size - tail).read(bytes.data() + head, tail);
  if (!file) return absl::NotFoundError(absl::StrCat("cannot read ", path));
  return absl::StrCat(size, "-", HexSha256(bytes));
}

std::string FingerprintOf(std::span<const std::string> parts) {
  std::string all;
  // With their lengths, so that different lists give different strings.
  for (const std::string& part : parts) absl::StrAppend(&all, part.size(), ":", part);
  return absl::StrCat("fp_", HexSha256(all).substr(0, 12));
}

}  // namespace runnel::inference
