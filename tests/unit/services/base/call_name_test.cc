#include "services/base/call_name.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>

namespace runnel::base {
namespace {

TEST(CallName, IsBoundedAndHasNoControlCharacters) {
  const std::pair<std::string, bool> rows[] = {
      {"get_weather", true},
      {"W\u00E4hrung \u6C34", true},
      {std::string(256, 'a'), true},
      {std::string(257, 'a'), false},
      {"", false},
      {"a\n", false},
      {std::string("a\0b", 3), false},
      {"\x7F", false},
      {"\u0085", false},
      {"\u00A0", true},
  };
  for (const auto& [name, valid] : rows) EXPECT_EQ(IsValidCallName(name), valid) << name;
}

}  // namespace
}  // namespace runnel::base
