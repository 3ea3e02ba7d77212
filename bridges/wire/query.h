#pragma once

#include <map>
#include <string>
#include <string_view>

namespace runnel::bridge {

// The decoded parameters of the query of a URL. Each name occurs once.
using Query = std::map<std::string, std::string>;

// Empty if the query has no parameter with this name.
inline std::string_view QueryValue(const Query& query, const std::string& name) {
  const auto found = query.find(name);
  return found == query.end() ? std::string_view() : std::string_view(found->second);
}

}  // namespace runnel::bridge
