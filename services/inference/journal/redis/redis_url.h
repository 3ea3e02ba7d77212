#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "services/base/host_port.h"

namespace runnel::inference {

// Where a Redis or Valkey is.
struct RedisUrl {
  bool tls = false;
  // One server; with a master name, the Sentinels that know the address of the master.
  std::vector<base::HostPort> servers;
  std::string master_name;  // empty: without Sentinel
  int db = 0;

  // Without the database, for messages: "redis://host:port".
  std::string ToString() const;
};

// Parses
//
//   redis://host[:port][/db]                                        a server; the default port is 6379
//   redis+sentinel://host[:port][,host[:port]...]/master-name[/db]  the master that these Sentinels know; 26379
//
// and the same with rediss:// and rediss+sentinel://, which use TLS for all connections. An IPv6 address is in
// brackets. The InvalidArgument error names the flag --log and says what is wrong. It never contains the URL: a
// password in it is rejected, because every process listing would show it (it belongs in --log_password_file), and so
// is a user (--log_user), a query or a fragment.
absl::StatusOr<RedisUrl> ParseRedisUrl(std::string_view url);

}  // namespace runnel::inference
