#include "services/inference/generation/token_id_store.h"

#include <string_view>

namespace runnel::inference {
namespace {

void PackNumber(uint64_t number, std::string* out) {
  for (; number >= 0x80; number >>= 7) out->push_back(static_cast<char>(0x80 | (number & 0x7F)));
  out->push_back(static_cast<char>(number));
}

uint64_t UnpackNumber(std::string_view* in) {
  uint64_t number = 0;
  for (int shift = 0;; shift += 7) {
    const auto byte = static_cast<uint8_t>(in->front());
    in->remove_prefix(1);
    number |= uint64_t{byte & 0x7Fu} << shift;
    if (byte < 0x80) return number;
  }
}

}  // namespace

void TokenIdStore::Add(size_t delta, std::span<const uint32_t> ids) {
  while (deltas_ < delta) AddOne({});
  AddOne(ids);
}

void TokenIdStore::AddOne(std::span<const uint32_t> ids) {
  if (deltas_++ % kStride == 0) begins_.push_back(packed_.size());
  PackNumber(ids.size(), &packed_);
  for (const uint32_t id : ids) PackNumber(id, &packed_);
}

std::vector<uint32_t> TokenIdStore::Get(size_t delta) const {
  std::vector<uint32_t> ids;
  if (delta >= deltas_) return ids;
  std::string_view rest = std::string_view(packed_).substr(begins_[delta / kStride]);
  for (size_t skipped = 0; skipped < delta % kStride; ++skipped) {
    for (uint64_t left = UnpackNumber(&rest); left > 0; --left) UnpackNumber(&rest);
  }
  for (uint64_t left = UnpackNumber(&rest); left > 0; --left) ids.push_back(static_cast<uint32_t>(UnpackNumber(&rest)));
  return ids;
}

}  // namespace runnel::inference
