#include "tests/bench/load/process_usage.h"

#include <time.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"

namespace runnel::bench {
namespace {

namespace fs = std::filesystem;

// Fields of /proc/PID/stat, counted from the state, which is the first field after the name; see proc(5).
constexpr size_t kUserTicks = 11;
constexpr size_t kSystemTicks = 12;
constexpr size_t kThreads = 17;
constexpr size_t kResidentPages = 21;

std::vector<uint64_t> ReadStat(const fs::path& process) {
  std::ifstream file(process / "stat");
  std::string line;
  std::getline(file, line);
  const size_t name_end = line.rfind(')');
  std::vector<uint64_t> values;
  if (name_end == std::string::npos) return values;
  std::istringstream fields(line.substr(name_end + 2));
  for (std::string field; fields >> field;) values.push_back(std::strtoull(field.c_str(), nullptr, 10));
  return values;
}

uint64_t ReadContextSwitches(const fs::path& process) {
  uint64_t sum = 0;
  std::error_code ec;
  for (const auto& thread : fs::directory_iterator(process / "task", ec)) {
    std::ifstream status(thread.path() / "status");
    for (std::string line; std::getline(status, line);) {
      const size_t colon = line.find("ctxt_switches:");
      if (colon != std::string::npos) sum += std::strtoull(line.c_str() + colon + 14, nullptr, 10);
    }
  }
  return sum;
}

// User and system time of a process, including that of threads that have ended. /proc has it only to 10 ms.
std::optional<double> ReadCpuMicros(int pid) {
  clockid_t clock{};
  timespec time{};
  if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &time) != 0) return std::nullopt;
  return static_cast<double>(time.tv_sec) * 1e6 + static_cast<double>(time.tv_nsec) / 1e3;
}

}  // namespace

ProcessUsage ReadUsage(const std::vector<int>& pids) {
  const double us_per_tick = 1e6 / static_cast<double>(sysconf(_SC_CLK_TCK));
  const auto page_kib = static_cast<uint64_t>(sysconf(_SC_PAGESIZE)) / 1024;
  ProcessUsage usage;
  for (const int pid : pids) {
    const fs::path process = fs::path("/proc") / std::to_string(pid);
    const std::vector<uint64_t> stat = ReadStat(process);
    if (stat.size() <= kResidentPages) continue;
    usage.cpu_us +=
        ReadCpuMicros(pid).value_or(static_cast<double>(stat[kUserTicks] + stat[kSystemTicks]) * us_per_tick);
    usage.threads += stat[kThreads];
    usage.rss_kib += stat[kResidentPages] * page_kib;
    usage.context_switches += ReadContextSwitches(process);
  }
  return usage;
}

bool ParseProcessGroup(const std::string& text, ProcessGroup* group) {
  const std::vector<std::string> parts = absl::StrSplit(text, ':');
  group->name = parts.front();
  for (const auto& number : absl::StrSplit(parts.back(), '+')) {
    int pid = 0;
    if (!absl::SimpleAtoi(number, &pid) || pid <= 0) return false;
    group->pids.push_back(pid);
  }
  return parts.size() <= 2;
}

}  // namespace runnel::bench
