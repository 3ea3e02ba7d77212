#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

// Media types in HTTP fields (RFC 9110, 8.3.1 and 12.5.1). Pure functions.
namespace runnel::bridge {

// One member of a list, in lower case except for the values of its parameters.
struct MediaRange {
  std::string type;                                             // `*` only in Accept
  std::string subtype;                                          // likewise
  std::vector<std::pair<std::string, std::string>> parameters;  // without `q`
  int quality = 1000;                                           // in thousandths; 0: not acceptable
};

// The well-formed members of a list, for example of Accept, whose lines have been joined by commas. Malformed members
// are skipped, so that one of them does not hide the others.
std::vector<MediaRange> ParseMediaRanges(std::string_view list);

// The quality that an Accept list gives to `type`/`subtype` without parameters, in thousandths, and whether the list
// names that type rather than a wildcard. The most specific member decides. An empty list accepts everything.
struct Acceptance {
  int quality = 0;
  bool named = false;
};
Acceptance AcceptanceOf(std::string_view accept, std::string_view type, std::string_view subtype);

// Whether a client prefers text/event-stream to application/json: its quality is higher, or equal and the list names
// it.
bool PrefersEventStream(std::string_view accept);

// Whether a Content-Type is JSON in UTF-8: a single application/json whose charset, if present, is UTF-8 or a subset of
// it.
bool IsJsonContentType(std::string_view content_type);

}  // namespace runnel::bridge
