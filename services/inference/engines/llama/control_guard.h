#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "services/inference/engines/llama/llama_model.h"

namespace runnel::inference {

// Keeps the control tokens of a chat template apart from text of clients that looks like them. Such text is replaced
// before the template is applied by digits that no client can predict, which no template changes, and put back into the
// result as text that is not trusted.
class ControlGuard {
 public:
  // `control_texts` must outlive it.
  explicit ControlGuard(const std::vector<std::string>& control_texts);

  // To be applied to every text of a client.
  std::string Protect(std::string_view text);
  // The same for JSON, whose escapes the template may decode.
  std::string ProtectJson(const std::string& text);
  // Divides a rendered text at what Protect has replaced.
  std::vector<PromptSegment> Restore(std::string_view rendered) const;

  // Something was replaced.
  bool used() const { return !replaced_.empty(); }

 private:
  std::string_view MatchAt(std::string_view text) const;

  std::vector<std::vector<std::string_view>> by_first_byte_;  // the longest first
  std::string nonce_;
  std::vector<std::string> replaced_;
};

}  // namespace runnel::inference
