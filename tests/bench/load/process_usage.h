#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace runnel::bench {

// Resources that one or several processes have used so far, as counted by the kernel.
struct ProcessUsage {
  double cpu_us = 0;  // user and system time
  uint64_t rss_kib = 0;
  uint64_t threads = 0;
  uint64_t context_switches = 0;  // voluntary and involuntary, of the current threads
};

// Sums over `pids`. A process that has ended counts as zero.
ProcessUsage ReadUsage(const std::vector<int>& pids);

// A name and its processes: `bridge:12+13`.
struct ProcessGroup {
  std::string name;
  std::vector<int> pids;
};
// False if `text` is not of that form.
bool ParseProcessGroup(const std::string& text, ProcessGroup* group);

}  // namespace runnel::bench
