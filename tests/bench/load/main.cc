// Opens many streams on a server and checks each strictly: every event once and in order, and the text against the
// digest in `done`. Prints the counts, the delays, and the cost for the processes in --pids; with --json, also as one
// JSON object. Exits with 0 only if every stream was complete.

#include <sched.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "tests/bench/load/load_run.h"

ABSL_FLAG(std::string, json, "", "file for the result");

namespace {

using nlohmann::json;
using runnel::bench::Histogram;
using runnel::bench::LoadOptions;
using runnel::bench::LoadResult;
using runnel::bench::ProcessUsage;
using runnel::bench::Totals;
using runnel::bench::Transport;

json HistogramJson(const Histogram& histogram) {
  return {{"count", histogram.count()},
          {"p50", histogram.Percentile(0.5)},
          {"p99", histogram.Percentile(0.99)},
          {"p999", histogram.Percentile(0.999)},
          {"max", histogram.max()}};
}

json ProcessJson(const LoadOptions& options, const LoadResult& result, size_t i) {
  const double events = result.window_events > 0 ? static_cast<double>(result.window_events) : 1;
  const ProcessUsage& idle = result.idle[i];
  const ProcessUsage& before = result.before[i];
  const ProcessUsage& after = result.after[i];
  const double cpu = after.cpu_us - before.cpu_us;
  return {
      {"cpu_us", cpu},
      {"cpu_us_per_event", cpu / events},
      {"cpu_share", cpu / 1e6 / result.window_seconds},
      {"rss_kib_idle", idle.rss_kib},
      {"rss_kib", after.rss_kib},
      {"kib_per_stream", (static_cast<double>(after.rss_kib) - static_cast<double>(idle.rss_kib)) / options.streams},
      {"threads", after.threads},
      {"switches_per_event",
       (static_cast<double>(after.context_switches) - static_cast<double>(before.context_switches)) / events}};
}

json ResultJson(const LoadOptions& options, const LoadResult& result, bool good) {
  const Totals& totals = result.totals;
  json out = {{"transport", NameOf(options.transport)},
              {"streams", options.streams},
              {"good", good},
              {"timed_out", result.timed_out},
              {"opened", totals.opened},
              {"verified", totals.verified},
              {"broken", totals.broken},
              {"lost", totals.lost},
              {"duplicated", totals.duplicated},
              {"reordered", totals.reordered},
              {"first_fault", totals.first_fault},
              {"events_in_all", totals.events},
              {"tokens_in_all", totals.tokens},
              {"open_seconds", result.open_seconds},
              {"seconds", result.window_seconds},
              {"events", result.window_events},
              {"messages", result.window_messages},
              {"bytes_in", result.window_bytes_in},
              {"bytes_out_in_all", totals.bytes_out},
              {"delay_us", HistogramJson(totals.delay)},
              {"first_token_us", HistogramJson(totals.first_token)},
              {"added_first_token_us", HistogramJson(totals.added_first_token)}};
  for (size_t i = 0; i < options.processes.size(); ++i) {
    out["processes"][options.processes[i].name] = ProcessJson(options, result, i);
  }
  return out;
}

bool IsGood(const LoadOptions& options, const LoadResult& result) {
  const Totals& totals = result.totals;
  const uint64_t whole = options.idle || options.cut ? totals.opened : totals.verified;
  return !result.timed_out && totals.broken == 0 && totals.lost == 0 && totals.duplicated == 0 &&
         totals.reordered == 0 && whole == static_cast<uint64_t>(options.streams);
}

void Print(const json& out) {
  std::printf("%s: %d streams, opened %d, verified %d, broken %d, events %lld in %.1f s\n",
              out["transport"].get<std::string>().c_str(), out["streams"].get<int>(), out["opened"].get<int>(),
              out["verified"].get<int>(), out["broken"].get<int>(), out["events"].get<long long>(),
              out["seconds"].get<double>());
  const json& delay = out["delay_us"];
  if (delay["count"] > 0) {
    std::printf("append to client: p50 %.2f ms, p99 %.2f ms, p99.9 %.2f ms, most %.2f ms\n",
                delay["p50"].get<double>() / 1000, delay["p99"].get<double>() / 1000,
                delay["p999"].get<double>() / 1000, delay["max"].get<double>() / 1000);
  }
  for (const auto& [name, process] : out["processes"].items()) {
    std::printf("process %s: %.2f us CPU an event, %.1f KiB more memory a stream, %.2f switches an event\n",
                name.c_str(), process["cpu_us_per_event"].get<double>(), process["kib_per_stream"].get<double>(),
                process["switches_per_event"].get<double>());
  }
  if (const std::string fault = out["first_fault"]; !fault.empty()) std::printf("first fault: %s\n", fault.c_str());
}

}  // namespace

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage("Reads many streams of the scripted engine through a server and checks each.");
  absl::ParseCommandLine(argc, argv);
  auto options = runnel::bench::LoadOptionsFromFlags();
  if (!options.ok()) {
    std::fprintf(stderr, "runnel-load: %s\n", std::string(options.status().message()).c_str());
    return 2;
  }
  // The client is woken for each event. On few cores that would preempt the measured processes and increase their CPU
  // time.
  const sched_param normal{};
  sched_setscheduler(0, SCHED_BATCH, &normal);
  options->processes.push_back({"client", {getpid()}});
  const LoadResult result = options->transport == Transport::kGrpc ? RunOverGrpc(*options) : RunOverSockets(*options);
  const bool good = IsGood(*options, result);
  const json out = ResultJson(*options, result, good);
  Print(out);
  if (const std::string path = absl::GetFlag(FLAGS_json); !path.empty()) std::ofstream(path) << out.dump(1) << "\n";
  return good ? 0 : 1;
}
