// A TCP proxy that breaks connections between processes in ways that a seed determines.
//
//   runnel-fault-proxy --seed=7 --faults=cut,reset --routes=127.0.0.1:7000=127.0.0.1:8080,...
//
// Prints `ready` once it listens, and at SIGTERM one line of JSON: the number of connections, and how many had each
// fault.

#include <boost/asio/signal_set.hpp>
#include <csignal>
#include <exception>
#include <iostream>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "tests/chaos/fault_proxy.h"

ABSL_FLAG(uint64_t, seed, 1, "seed of all random choices");
ABSL_FLAG(std::vector<std::string>, routes, {}, "listen=target pairs of address:port, comma-separated");
ABSL_FLAG(std::vector<std::string>, faults, {},
          "faults to use: cut, reset, truncate, half_open, stall, delay, throttle, buffer, duplicate, close_idle, "
          "drip, garbage, repeat; empty: none");
ABSL_FLAG(double, share, 0.5, "share of the connections that get a fault [0 to 1]");
ABSL_FLAG(uint64_t, max_down_bytes, 20'000, "latest position of a fault in the server's bytes [bytes]");
ABSL_FLAG(uint64_t, max_up_bytes, 600, "latest position of a fault in the client's bytes [bytes]");
ABSL_FLAG(double, up_share, 0.15, "share of the faults that happen in the client's bytes [0 to 1]");
ABSL_FLAG(absl::Duration, max_delay, absl::Milliseconds(200), "longest time of delay and buffer");
ABSL_FLAG(absl::Duration, linger, absl::Seconds(8), "how long a side that does not learn of a fault is kept");

namespace runnel::chaos {
namespace {

using tcp = boost::asio::ip::tcp;

tcp::endpoint ParseEndpoint(absl::string_view text) {
  const std::pair<std::string, std::string> parts = absl::StrSplit(text, absl::MaxSplits(':', 1));
  unsigned port = 0;
  if (!absl::SimpleAtoi(parts.second, &port) || port > 65535) {
    throw std::invalid_argument("'" + std::string(text) + "' is not address:port");
  }
  return {boost::asio::ip::make_address(parts.first), static_cast<uint16_t>(port)};
}

FaultOptions OptionsFromFlags() {
  FaultOptions options;
  options.seed = absl::GetFlag(FLAGS_seed);
  options.share = absl::GetFlag(FLAGS_share);
  options.max_down_bytes = absl::GetFlag(FLAGS_max_down_bytes);
  options.max_up_bytes = absl::GetFlag(FLAGS_max_up_bytes);
  options.up_share = absl::GetFlag(FLAGS_up_share);
  options.max_delay = absl::ToChronoMilliseconds(absl::GetFlag(FLAGS_max_delay));
  auto kinds = ParseFaultKinds(absl::GetFlag(FLAGS_faults));
  if (!kinds.ok()) throw std::invalid_argument(std::string(kinds.status().message()));
  options.kinds = *std::move(kinds);
  return options;
}

void PrintCounts(const FaultProxy::Counts& counts) {
  std::cout << "{\"connections\":" << counts.connections << ",\"open\":" << counts.open;
  for (int kind = 1; kind < kFaultKinds; ++kind) {
    std::cout << ",\"" << FaultName(static_cast<FaultKind>(kind)) << "\":" << counts.struck[static_cast<size_t>(kind)];
  }
  std::cout << "}" << std::endl;
}

int Run() {
  boost::asio::io_context io(1);
  FaultProxy proxy(&io, OptionsFromFlags(), absl::ToChronoMilliseconds(absl::GetFlag(FLAGS_linger)));
  for (const std::string& route : absl::GetFlag(FLAGS_routes)) {
    const std::pair<std::string, std::string> ends = absl::StrSplit(route, absl::MaxSplits('=', 1));
    proxy.Add({ParseEndpoint(ends.first), ParseEndpoint(ends.second)});
  }
  boost::asio::signal_set signals(io, SIGTERM, SIGINT);
  signals.async_wait([&io](const boost::system::error_code&, int) { io.stop(); });
  std::cout << "ready" << std::endl;
  io.run();
  PrintCounts(proxy.counts());
  return 0;
}

}  // namespace
}  // namespace runnel::chaos

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage("A TCP proxy with seeded faults: runnel-fault-proxy --routes=LISTEN=TARGET,... [flags]");
  absl::ParseCommandLine(argc, argv);
  try {
    return runnel::chaos::Run();
  } catch (const std::exception& error) {
    std::cerr << "runnel-fault-proxy: " << error.what() << "\n";
    return 1;
  }
}
