// Opens many streams on a bridge and reads every one as strictly as a reader can: each event once, in order, the text
// equal to the CRC in `done`. Prints what came, how late, and what it cost the processes named by --pids.
//
// The client is as simple as can be (one thread, sockets, no HTTP library), so that it is the bridge that is measured.
// Ends with 0 only if every stream was whole.

#include <sys/resource.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

ABSL_FLAG(std::string, transport, "sse", "sse or ws");
ABSL_FLAG(std::string, address, "127.0.0.1:8080", "address:port of the bridge");
ABSL_FLAG(int, streams, 1000, "streams at once, one connection each");
ABSL_FLAG(int, tokens, 100, "tokens of each");
ABSL_FLAG(double, pace, 30, "tokens per second of each");
ABSL_FLAG(bool, idle, false, "the streams say `started` and then nothing; measures memory");
ABSL_FLAG(absl::Duration, timeout, absl::Seconds(60), "how long all of it may take");
ABSL_FLAG(std::vector<std::string>, pids, {}, "processes whose CPU time and memory to print");

namespace {

namespace net = boost::asio;
using boost::system::error_code;
using nlohmann::json;
using Clock = std::chrono::steady_clock;

struct Totals {
  int opened = 0;
  int ended = 0;
  int verified = 0;
  int broken = 0;
  uint64_t events = 0;
  uint64_t bytes = 0;
  std::vector<double> late_ms;
  std::string first_fault;
};

std::string RequestBody(int index) {
  json metadata = {{"scripted.tokens", std::to_string(absl::GetFlag(FLAGS_tokens))},
                   {"scripted.tokens_per_second", std::to_string(absl::GetFlag(FLAGS_pace))}};
  if (absl::GetFlag(FLAGS_idle)) metadata["scripted.stall_at"] = "0";
  return json{{"prompt", "go"}, {"max_tokens", 100000}, {"seed", index + 1}, {"metadata", metadata}}.dump();
}

// A WebSocket text frame as a client sends it; the mask may be zero.
std::string ClientFrame(const std::string& text) {
  std::string frame = "\x81";
  frame += static_cast<char>(0x80 | 126);
  frame += static_cast<char>(text.size() >> 8);
  frame += static_cast<char>(text.size() & 255);
  return frame + std::string(4, '\0') + text;
}

class Stream : public std::enable_shared_from_this<Stream> {
 public:
  Stream(net::io_context* io, int index, Totals* totals) : socket_(*io), index_(index), totals_(totals) {}

  void Start(const net::ip::tcp::endpoint& endpoint) {
    socket_.async_connect(endpoint, [self = shared_from_this()](error_code ec) {
      if (ec) return self->Fault("connect: " + ec.message());
      self->socket_.set_option(net::ip::tcp::no_delay(true));
      self->Send(self->Opening());
      self->Read();
    });
  }
  void Close() {
    error_code ignored;
    socket_.close(ignored);
  }

 private:
  std::string Opening() const {
    if (absl::GetFlag(FLAGS_transport) == "ws") {
      return "GET /v1/ws HTTP/1.1\r\nhost: load\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
             "sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
             "sec-websocket-protocol: runnel.v1\r\n\r\n";
    }
    const std::string body = RequestBody(index_);
    return "POST /v1/generations HTTP/1.1\r\nhost: load\r\naccept: text/event-stream\r\n"
           "content-type: application/json\r\ncontent-length: " +
           std::to_string(body.size()) + "\r\n\r\n" + body;
  }

  void Send(std::string bytes) {
    auto held = std::make_shared<std::string>(std::move(bytes));
    net::async_write(socket_, net::buffer(*held), [self = shared_from_this(), held](error_code ec, size_t) {
      if (ec) self->Fault("write: " + ec.message());
    });
  }

  void Read() {
    socket_.async_read_some(net::buffer(chunk_), [self = shared_from_this()](error_code ec, size_t bytes) {
      if (self->over_) return;
      if (ec) return self->Fault("read: " + ec.message());
      self->totals_->bytes += bytes;
      self->raw_.append(self->chunk_.data(), bytes);
      self->Parse();
      if (!self->over_) self->Read();
    });
  }

  void Parse() {
    if (!header_done_) {
      const size_t end = raw_.find("\r\n\r\n");
      if (end == std::string::npos) return;
      const std::string head = raw_.substr(0, end);
      const bool ws = absl::GetFlag(FLAGS_transport) == "ws";
      if (head.find(ws ? " 101 " : " 200 ") == std::string::npos) return Fault(head.substr(0, head.find('\r')));
      chunked_ = head.find("chunked") != std::string::npos;
      header_done_ = true;
      raw_.erase(0, end + 4);
      if (ws) Send(ClientFrame(json{{"type", "generate"}, {"req", "r"}, {"body", json::parse(RequestBody(index_))}}.dump()));
    }
    if (absl::GetFlag(FLAGS_transport) == "ws") return ParseFrames();
    if (chunked_) {
      Unchunk();
    } else {
      text_ += std::exchange(raw_, {});
    }
    ParseLines();
  }

  void Unchunk() {
    size_t at = 0;
    while (true) {
      const size_t line = raw_.find("\r\n", at);
      if (line == std::string::npos) break;
      const size_t size = std::stoul(raw_.substr(at, line - at), nullptr, 16);
      if (raw_.size() < line + 2 + size + 2) break;
      text_.append(raw_, line + 2, size);
      at = line + 2 + size + 2;
      if (size == 0) break;
    }
    raw_.erase(0, at);
  }

  void ParseLines() {
    size_t at = 0;
    for (size_t end; !over_ && (end = text_.find('\n', at)) != std::string::npos; at = end + 1) {
      if (text_.compare(at, 6, "data: ") == 0) OnEvent(text_.substr(at + 6, end - at - 6));
    }
    text_.erase(0, at);
  }

  void ParseFrames() {
    size_t at = 0;
    while (!over_ && raw_.size() >= at + 2) {
      const auto byte = [&](size_t i) { return static_cast<uint64_t>(static_cast<unsigned char>(raw_[at + i])); };
      uint64_t size = byte(1) & 127;
      size_t head = 2;
      const size_t wide = size == 126 ? 2 : size == 127 ? 8 : 0;
      if (raw_.size() < at + 2 + wide) break;
      if (wide > 0) {
        size = 0;
        for (size_t i = 0; i < wide; ++i) size = (size << 8) | byte(2 + i);
        head += wide;
      }
      if (raw_.size() < at + head + size) break;
      if ((byte(0) & 15) == 1) OnEvent(raw_.substr(at + head, size));
      at += head + size;
    }
    raw_.erase(0, at);
  }

  void OnEvent(const std::string& text) {
    const json event = json::parse(text);
    const std::string type = event.at("type");
    if (type == "hello" || type == "attached" || type == "pong") return;
    if (type == "error" || type == "goaway") return Fault(text);
    const uint64_t seq = event.at("seq");
    const uint64_t first = event.value("first_seq", seq);
    if (first != last_ + 1) return Fault("event " + std::to_string(first) + " after " + std::to_string(last_));
    totals_->events += seq - last_;
    last_ = seq;
    if (type == "started") {
      created_ = Parsed(event.at("created_at"));
      ++totals_->opened;
    } else if (type == "delta") {
      text_so_far_ += event.at("text").get_ref<const std::string&>();
      totals_->late_ms.push_back(absl::ToDoubleMilliseconds(absl::Now() - created_) - event.value("ms", 0.0));
    } else {
      Check(type, event);
    }
  }

  static absl::Time Parsed(const std::string& text) {
    absl::Time time;
    std::string error;
    absl::ParseTime(absl::RFC3339_full, text, &time, &error);
    return time;
  }

  void Check(const std::string& type, const json& event) {
    if (type != "done") return Fault(event.dump());
    const json& choice = event.at("choices").at(0);
    const auto crc = crc32_z(0, reinterpret_cast<const Bytef*>(text_so_far_.data()), text_so_far_.size());
    std::array<char, 9> hex{};
    std::snprintf(hex.data(), hex.size(), "%08lx", static_cast<unsigned long>(crc));
    if (event.at("events") != last_ || choice.at("text_bytes") != text_so_far_.size() || choice.at("crc32") != hex.data()) {
      return Fault("the digest differs");
    }
    ++totals_->verified;
    End();
  }

  void Fault(const std::string& what) {
    if (over_) return;
    ++totals_->broken;
    if (totals_->first_fault.empty()) totals_->first_fault = "stream " + std::to_string(index_) + ": " + what;
    End();
  }

  void End() {
    over_ = true;
    ++totals_->ended;
    Close();
  }

  net::ip::tcp::socket socket_;
  const int index_;
  Totals* const totals_;
  std::array<char, 4096> chunk_;
  std::string raw_;   // as it came
  std::string text_;  // without HTTP's framing
  std::string text_so_far_;
  bool header_done_ = false;
  bool chunked_ = false;
  bool over_ = false;
  uint64_t last_ = 0;
  absl::Time created_;
};

struct Usage {
  double cpu_seconds = 0;
  double rss_kib = 0;
};

Usage ReadUsage(const std::string& pid) {
  std::ifstream file("/proc/" + pid + "/stat");
  std::string rest;
  std::getline(file, rest);
  rest.erase(0, rest.rfind(')') + 2);
  std::istringstream fields(rest);
  std::vector<std::string> values;
  for (std::string value; fields >> value;) values.push_back(value);
  Usage usage;
  if (values.size() < 22) return usage;
  const auto ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  usage.cpu_seconds = (std::stod(values[11]) + std::stod(values[12])) / ticks;
  usage.rss_kib = std::stod(values[21]) * static_cast<double>(sysconf(_SC_PAGESIZE)) / 1024;
  return usage;
}

double Percentile(std::vector<double>* values, double share) {
  if (values->empty()) return 0;
  const auto at = values->begin() + static_cast<std::ptrdiff_t>(share * static_cast<double>(values->size() - 1));
  std::nth_element(values->begin(), at, values->end());
  return *at;
}

bool Report(Totals* totals, const std::vector<Usage>& before, double seconds) {
  const bool idle = absl::GetFlag(FLAGS_idle);
  const int streams = absl::GetFlag(FLAGS_streams);
  std::printf("%s: %d streams, opened %d, verified %d, broken %d, events %llu in %.1f s\n",
              absl::GetFlag(FLAGS_transport).c_str(), streams, totals->opened, totals->verified, totals->broken,
              static_cast<unsigned long long>(totals->events), seconds);
  if (!totals->late_ms.empty()) {
    std::printf("late: p50 %.1f ms, p99 %.1f ms (append to client, to 1 ms)\n", Percentile(&totals->late_ms, 0.5),
                Percentile(&totals->late_ms, 0.99));
  }
  const auto pids = absl::GetFlag(FLAGS_pids);
  for (size_t i = 0; i < pids.size(); ++i) {
    const Usage after = ReadUsage(pids[i]);
    std::printf("process %s: %.2f us CPU an event, %.1f KiB more memory a stream\n", pids[i].c_str(),
                (after.cpu_seconds - before[i].cpu_seconds) * 1e6 / static_cast<double>(std::max<uint64_t>(1, totals->events)),
                (after.rss_kib - before[i].rss_kib) / streams);
  }
  if (!totals->first_fault.empty()) std::printf("first fault: %s\n", totals->first_fault.c_str());
  return totals->broken == 0 && (idle ? totals->opened : totals->verified) == streams;
}

int Run() {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  const std::string address = absl::GetFlag(FLAGS_address);
  const size_t colon = address.rfind(':');
  const net::ip::tcp::endpoint endpoint(net::ip::make_address(address.substr(0, colon)),
                                        static_cast<uint16_t>(std::stoi(address.substr(colon + 1))));
  std::vector<Usage> before;
  for (const auto& pid : absl::GetFlag(FLAGS_pids)) before.push_back(ReadUsage(pid));
  net::io_context io;
  Totals totals;
  std::vector<std::shared_ptr<Stream>> streams;
  const auto begin = Clock::now();
  const auto deadline = begin + absl::ToChronoNanoseconds(absl::GetFlag(FLAGS_timeout));
  const auto count = absl::GetFlag(FLAGS_streams);
  const auto over = [&] { return totals.ended == count || (absl::GetFlag(FLAGS_idle) && totals.opened == count); };
  // A few at a time: the listen queue of a bridge is finite, and so is a client's right to hurry.
  constexpr int kOpenAtOnce = 64;
  while (!over() && Clock::now() < deadline) {
    while (static_cast<int>(streams.size()) < count &&
           static_cast<int>(streams.size()) - totals.opened - totals.broken < kOpenAtOnce) {
      streams.push_back(std::make_shared<Stream>(&io, static_cast<int>(streams.size()), &totals));
      streams.back()->Start(endpoint);
    }
    io.restart();
    io.run_one_for(std::chrono::milliseconds(100));
    io.poll();
  }
  const std::chrono::duration<double> taken = Clock::now() - begin;
  const bool good = Report(&totals, before, taken.count());
  for (const auto& stream : streams) stream->Close();
  return good ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage("Reads many streams of the scripted engine through a bridge and checks each.");
  absl::ParseCommandLine(argc, argv);
  return Run();
}
