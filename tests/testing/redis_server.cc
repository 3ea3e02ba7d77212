#include "tests/testing/redis_server.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "services/base/status_macros.h"
#include "services/base/strings.h"
#include "services/base/unique_fd.h"
#include "tests/testing/wait.h"

namespace runnel::testing {
namespace {

constexpr char kConfig[] = "/server.conf";
constexpr char kSocket[] = "/socket";
constexpr char kLog[] = "/log";

// Another process may take it before the server does; Start tries again then.
int FreePort() {
  const base::UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), size) != 0 ||
      getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    return 0;
  }
  return ntohs(address.sin_port);
}

std::string FindOnPath(const std::string& name) {
  const char* const path = std::getenv("PATH");
  for (const auto folder : absl::StrSplit(path == nullptr ? "" : path, ':', absl::SkipEmpty())) {
    std::string file = absl::StrCat(folder, "/", name);
    if (access(file.c_str(), X_OK) == 0) return file;
  }
  return "";
}

std::string Encode(std::initializer_list<std::string_view> args) {
  std::string bytes = absl::StrCat("*", args.size(), "\r\n");
  for (const std::string_view arg : args) {
    absl::StrAppend(&bytes, "$", arg.size(), "\r\n", base::ToAbsl(arg), "\r\n");
  }
  return bytes;
}

base::UniqueFd ConnectTo(const std::string& path) {
  base::UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const timeval bound{.tv_sec = 10, .tv_usec = 0};
  setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &bound, sizeof bound);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) fd.reset();
  return fd;
}

// A PING with this text is the last command, so its reply ends the replies. Sentinels have no QUIT.
constexpr std::string_view kEnd = "$10\r\nend-of-run\r\n";

// The replies to `commands`; empty if the last one is not kEnd, which a server that is loading its data does not send.
std::string Ask(int fd, const std::string& commands) {
  if (send(fd, commands.data(), commands.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(commands.size())) return "";
  std::string replies;
  char some[4096];
  while (!replies.ends_with(kEnd)) {
    const ssize_t got = recv(fd, some, sizeof some, 0);
    if (got <= 0) return "";
    replies.append(some, static_cast<size_t>(got));
    if (replies.find("-LOADING ") != std::string::npos) return "";
  }
  replies.erase(replies.size() - kEnd.size());
  return replies;
}

}  // namespace

std::string RedisServer::Program(RedisKind kind) {
  const char* const program = std::getenv(kind == RedisKind::kRedis ? "RUNNEL_REDIS" : "RUNNEL_VALKEY");
  if (program != nullptr && access(program, X_OK) == 0) return program;
  return FindOnPath(kind == RedisKind::kRedis ? "redis-server" : "valkey-server");
}

absl::StatusOr<std::unique_ptr<RedisServer>> RedisServer::Start(Options options) {
  std::unique_ptr<RedisServer> server(new RedisServer(std::move(options)));
  std::string dir = (std::filesystem::temp_directory_path() / "runnel-redis-XXXXXX").string();
  if (mkdtemp(dir.data()) == nullptr) return absl::InternalError("no temporary directory");
  server->dir_ = dir;
  absl::Status started;
  for (int tries = 0; tries < 5; ++tries) {
    server->port_ = FreePort();
    server->WriteConfig();
    started = server->Launch();
    if (started.ok()) return server;
  }
  return started;
}

RedisServer::~RedisServer() {
  Kill();
  std::error_code ignored;
  if (!dir_.empty()) std::filesystem::remove_all(dir_, ignored);
}

std::string RedisServer::url() const {
  return absl::StrCat(options_.cert_file.empty() ? "redis" : "rediss", "://127.0.0.1:", port_);
}

void RedisServer::WriteConfig() const {
  const bool tls = !options_.cert_file.empty();
  std::ofstream config(dir_ + kConfig);
  config << "bind 127.0.0.1\nport " << (tls ? 0 : port_) << "\nunixsocket " << dir_ << kSocket << "\ndir " << dir_
         << "\nlogfile " << dir_ << kLog << "\n";
  if (tls) {
    config << "tls-port " << port_ << "\ntls-cert-file " << options_.cert_file << "\ntls-key-file " << options_.key_file
           << "\ntls-ca-cert-file " << (options_.client_ca_file.empty() ? options_.cert_file : options_.client_ca_file)
           << "\ntls-auth-clients " << (options_.client_ca_file.empty() ? "no" : "yes") << "\n";
  }
  if (!options_.password.empty()) config << "requirepass " << options_.password << "\n";
  if (options_.sentinel_of != 0) {
    config << "sentinel monitor main 127.0.0.1 " << options_.sentinel_of
           << " 1\nsentinel down-after-milliseconds main 200\nsentinel failover-timeout main 2000\n";
  } else {
    config << "save \"\"\nrepl-diskless-sync-delay 0\nshutdown-timeout 0\nappendonly " << (options_.aof ? "yes" : "no")
           << "\n";
    if (options_.replica_of != 0) config << "replicaof 127.0.0.1 " << options_.replica_of << "\n";
    if (!options_.maxmemory.empty()) config << "maxmemory " << options_.maxmemory << "\n";
  }
  if (!options_.users.empty()) {
    std::ofstream users(dir_ + "/users.acl");
    for (const std::string& user : options_.users) users << user << "\n";
    config << "aclfile " << dir_ << "/users.acl\n";
  }
  for (const std::string& line : options_.config) config << line << "\n";
}

absl::Status RedisServer::Launch() {
  const std::string program = Program(options_.kind);
  if (program.empty()) return absl::NotFoundError("the server's program is not installed");
  // A killed server leaves it.
  unlink((dir_ + kSocket).c_str());
  const std::string config = dir_ + kConfig;
  const std::string output = dir_ + "/output";
  const char* const args[] = {program.c_str(), config.c_str(), options_.sentinel_of == 0 ? nullptr : "--sentinel",
                              nullptr};
  const pid_t parent = getpid();
  pid_ = fork();
  if (pid_ < 0) return absl::InternalError("cannot fork");
  if (pid_ == 0) {
    // Only what is safe after a fork of a process with threads.
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    const int out = open(output.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    dup2(out, STDOUT_FILENO);
    dup2(out, STDERR_FILENO);
    execv(program.c_str(), const_cast<char* const*>(args));
    _exit(1);
  }
  if (WaitUntilReady()) return absl::OkStatus();
  Kill();
  return absl::InternalError(absl::StrCat("the server does not start:\n", LogTail()));
}

bool RedisServer::WaitUntilReady() {
  bool ready = false;
  WaitUntil([this, &ready] {
    if (waitpid(pid_, nullptr, WNOHANG) == pid_) {
      pid_ = -1;
      return true;
    }
    ready = Run({"PING"}) == "+PONG\r\n";
    return ready;
  });
  return ready;
}

std::string RedisServer::LogTail() const {
  std::string tail;
  for (const char* name : {kLog, "/output"}) {
    std::ifstream log(dir_ + name);
    tail.append(std::istreambuf_iterator<char>(log), {});
  }
  return tail.substr(tail.size() > 2000 ? tail.size() - 2000 : 0);
}

absl::Status RedisServer::Restart() {
  Kill();
  return Launch();
}

void RedisServer::Kill() { End(SIGKILL); }

void RedisServer::Shutdown() {
  if (pid_ > 0) kill(pid_, SIGCONT);
  End(SIGTERM);
}

void RedisServer::End(int signal) {
  if (pid_ <= 0) return;
  kill(pid_, signal);
  waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

void RedisServer::Stop() {
  kill(pid_, SIGSTOP);
  int status = 0;
  waitpid(pid_, &status, WUNTRACED);
}

void RedisServer::Continue() { kill(pid_, SIGCONT); }

std::string RedisServer::Run(std::initializer_list<std::string_view> args) {
  const base::UniqueFd fd = ConnectTo(dir_ + kSocket);
  if (!fd) return "";
  std::string replies = Ask(fd.get(), (options_.password.empty() ? "" : Encode({"AUTH", options_.password})) +
                                          Encode(args) + Encode({"PING", "end-of-run"}));
  const std::string_view ok = "+OK\r\n";
  if (!options_.password.empty() && replies.starts_with(ok)) replies.erase(0, ok.size());
  return replies;
}

}  // namespace runnel::testing
