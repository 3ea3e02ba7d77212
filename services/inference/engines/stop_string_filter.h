#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "services/inference/engines/utf8.h"

namespace runnel::inference {

// Turns a model's bytes, token by token, into text that may be shown: whole UTF-8 characters (see Utf8Joiner) up to a
// stop string. Bytes that may still become part of a stop string or of a character are held until that is known. A
// character that the end cuts is dropped.
//
// The text depends on the bytes only, not on how they are cut into tokens. It ends before the stop string that is
// complete first; of two that end at the same byte, before the longer one. Not thread-safe.
class StopStringFilter {
 public:
  // `stops` are valid UTF-8 and not empty.
  explicit StopStringFilter(std::vector<std::string> stops) : stops_(std::move(stops)) {}

  // Returns the text that is now certain, possibly none. Always empty once stopped() is true.
  std::string Push(std::string_view bytes);

  // Returns the text that is held, without an incomplete character, so that the text can be continued after it. To be
  // called at the end, for whatever reason it ends. Empty after a stop string.
  std::string Finish();

  // A stop string is complete.
  bool stopped() const { return stopped_; }

 private:
  std::string TakeCertain();

  std::vector<std::string> stops_;
  Utf8Joiner joiner_{Utf8Joiner::Surrogates::kReplace};
  std::string held_;  // whole characters that may begin a stop string
  bool stopped_ = false;
};

}  // namespace runnel::inference
