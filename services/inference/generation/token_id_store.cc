#include "services/inference/generation/token_id_store.h"

#include <string_view>

#include "services/inference/generation/packed_number.h"

namespace runnel::inference {

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
