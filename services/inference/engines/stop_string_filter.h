#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace runnel::inference {

// Turns a model's bytes, token by token, into text that may be shown: whole UTF-8 characters, and nothing of a stop
// string. What may still become a part of one, or of a character, is held until it is known. Whatever is not UTF-8
// becomes U+FFFD, one for each maximal part (Unicode 15, section 3.9, "U+FFFD Substitution of Maximal Subparts"), but a
// character that the end has cut is left out.
//
// The text is a function of the bytes alone, however they are cut into tokens. It ends before the stop string that is
// complete first; of two that end at the same byte, before the longer one. Not thread-safe.
class StopStringFilter {
 public:
  // `stops` are valid UTF-8 and not empty.
  explicit StopStringFilter(std::vector<std::string> stops) : stops_(std::move(stops)) {}

  // Returns the text that has become sure, which may be none. None at all once stopped() is true.
  std::string Push(std::string_view bytes);

  // Returns what was held, without the beginning of a character that never became whole: the text can be continued
  // after it. To be called at the end, whatever ended it; the stop string and what followed it are not returned.
  std::string Finish();

  // A stop string came.
  bool stopped() const { return stopped_; }

 private:
  std::string TakeSure();

  const std::vector<std::string> stops_;
  std::string torn_;  // the beginning of a character
  std::string held_;  // whole characters that a stop string may begin with
  bool stopped_ = false;
};

}  // namespace runnel::inference
