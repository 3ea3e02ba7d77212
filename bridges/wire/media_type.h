#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

// Media types in HTTP fields (RFC 9110, 8.3.1 and 12.5.1). Pure functions.
namespace runnel::bridge {

// One member of a list, in lower case but for the values of its parameters.
struct MediaRange {
  std::string type;                                             // `*` only in Accept
  std::string subtype;                                          // likewise
  std::vector<std::pair<std::string, std::string>> parameters;  // without `q`
  int quality = 1000;                                           // thousandths; 0: refused
};

// The well-formed members of a list such as the value of Accept, whose lines have been joined by commas. Members that
// are not well-formed are left out, so that one of them does not hide the others.
std::vector<MediaRange> ParseMediaRanges(std::string_view list);

// The quality that an Accept list gives to `type`/`subtype` without parameters, in thousandths, and whether the list
// names it itself rather than by a wildcard. The most specific member decides. An empty list accepts everything.
struct Acceptance {
  int quality = 0;
  bool named = false;
};
Acceptance AcceptanceOf(std::string_view accept, std::string_view type, std::string_view subtype);

// Whether a client asks for text/event-stream rather than application/json: it rates it higher, or as high and by name.
bool PrefersEventStream(std::string_view accept);

// Whether a Content-Type says JSON in UTF-8: application/json, alone, whose charset, if it has one, is UTF-8 or a part
// of it.
bool IsJsonContentType(std::string_view content_type);

}  // namespace runnel::bridge
