#include "services/base/call_name.h"

#include "services/base/request_limits.h"

namespace runnel::base {

bool IsValidCallName(std::string_view name) {
  if (name.empty() || name.size() > kMaxCallNameBytes) return false;
  for (size_t i = 0; i < name.size(); ++i) {
    const auto byte = static_cast<unsigned char>(name[i]);
    if (byte < 0x20 || byte == 0x7F) return false;
    // U+0080 to U+009F.
    if (byte == 0xC2 && i + 1 < name.size() && static_cast<unsigned char>(name[i + 1]) < 0xA0) return false;
  }
  return true;
}

}  // namespace runnel::base
