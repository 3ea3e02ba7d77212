#pragma once

#include <string_view>

// Hosts in URIs, Host fields and origins. Pure functions.
namespace runnel::base {

// Whether it is host or host:port, with a name, an IPv4 address or an IPv6 address in brackets, and no user
// information.
bool IsWellFormedAuthority(std::string_view authority);

// Of a well-formed authority: the host without brackets; the port, or empty.
std::string_view HostOf(std::string_view authority);
std::string_view PortOf(std::string_view authority);

// Whether a host (without a port) is an address, localhost or below .localhost. The owner of any other name can make it
// point to this machine (DNS rebinding), so a page with such a name must not be trusted as local.
bool IsLocalHostName(std::string_view host);

}  // namespace runnel::base
