#include "tests/bench/load/http_text.h"

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace runnel::bench {

std::string PostRequest(const char* path, const std::string& body, const char* accept) {
  return absl::StrCat("POST ", path, " HTTP/1.1\r\nhost: localhost\r\naccept: ", accept,
                      "\r\ncontent-type: application/json\r\ncontent-length: ", body.size(), "\r\n\r\n", body);
}

std::string TakeHead(std::string* in) {
  const size_t end = in->find("\r\n\r\n");
  if (end == std::string::npos) return "";
  std::string head = in->substr(0, end + 2);
  in->erase(0, end + 4);
  absl::AsciiStrToLower(&head);
  return head;
}

bool HasStatus(const std::string& head, const char* status) { return head.compare(9, 3, status) == 0; }

std::string FirstLine(const std::string& head) { return head.substr(0, head.find('\r')); }

}  // namespace runnel::bench
