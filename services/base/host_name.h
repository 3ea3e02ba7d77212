#pragma once

#include <string_view>

// Hosts as URIs, Host fields and origins name them. Pure functions.
namespace runnel::base {

// host or host:port: a name, an IPv4 address or an IPv6 address in brackets, without user information and not empty.
bool IsWellFormedAuthority(std::string_view authority);

// Of a well-formed one: without its port and without brackets; and its port, or empty.
std::string_view HostOf(std::string_view authority);
std::string_view PortOf(std::string_view authority);

// Whether a host (without a port) is an address, localhost or below .localhost. Any other name may be made to point to
// this machine by its owner (DNS rebinding), so a page of that name must not be taken for one of ours.
bool IsLocalHostName(std::string_view host);

}  // namespace runnel::base
