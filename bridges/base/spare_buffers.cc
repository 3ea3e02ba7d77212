#include "bridges/base/spare_buffers.h"

#include <utility>
#include <vector>

namespace runnel::bridge {
namespace {

thread_local std::vector<std::string> spares;

}  // namespace

void BorrowBuffer(std::string* out) {
  if (!out->empty() || spares.empty() || out->capacity() >= spares.back().capacity()) return;
  out->swap(spares.back());
  spares.pop_back();
}

void ReturnBuffer(std::string* out) {
  std::string buffer = std::exchange(*out, std::string());
  const size_t capacity = buffer.capacity();
  // A capacity below the size of the object is the inline buffer of a short string.
  if (spares.size() == kMaxSpareBuffers || capacity > kMaxSpareBytes || capacity < sizeof buffer) return;
  buffer.clear();
  spares.push_back(std::move(buffer));
}

}  // namespace runnel::bridge
