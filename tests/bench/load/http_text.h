#pragma once

#include <string>

namespace runnel::bench {

// A POST request with a JSON body.
std::string PostRequest(const char* path, const std::string& body, const char* accept);

// Removes the head of a response from `in` and returns it in lower case. Empty if it is not complete yet.
std::string TakeHead(std::string* in);

// Of what TakeHead returns.
bool HasStatus(const std::string& head, const char* status);
std::string FirstLine(const std::string& head);

}  // namespace runnel::bench
