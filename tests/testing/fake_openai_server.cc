#include "tests/testing/fake_openai_server.h"

#include <httplib.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <chrono>
#include <deque>
#include <nlohmann/json.hpp>
#include <thread>
#include <utility>

#include "services/base/mutex.h"

namespace runnel::testing {
namespace {

using SteadyClock = std::chrono::steady_clock;
using Json = nlohmann::json;

constexpr int kThreads = 64;
constexpr int kBacklog = 128;
constexpr auto kFailureBound = std::chrono::seconds(10);
// How soon a hanging response notices that its client has disconnected.
constexpr auto kLookEvery = std::chrono::milliseconds(5);

int PortOf(const sockaddr_in& address, int result) { return result == 0 ? ntohs(address.sin_port) : -1; }

// Closes the connection between two ports of 127.0.0.1, which cpp-httplib does not let its handlers do.
void CutConnection(int server_port, int client_port) {
  constexpr int kDescriptors = 4096;
  for (int fd = 0; fd < kDescriptors; ++fd) {
    sockaddr_in own{};
    sockaddr_in peer{};
    socklen_t size = sizeof own;
    if (PortOf(own, getsockname(fd, reinterpret_cast<sockaddr*>(&own), &size)) != server_port) continue;
    size = sizeof peer;
    if (PortOf(peer, getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &size)) != client_port) continue;
    shutdown(fd, SHUT_RDWR);
  }
}

std::string Event(const Json& chunk) { return "data: " + chunk.dump() + "\n\n"; }

Json Chunk(const char* object) {
  return {{"id", "fake-1"}, {"object", object}, {"created", 1700000000}, {"model", "fake-model"}};
}

Json ChatChunk(int index, const Json& delta, const Json& finish_reason) {
  Json chunk = Chunk("chat.completion.chunk");
  chunk["choices"] =
      Json::array({{{"index", index}, {"delta", delta}, {"logprobs", nullptr}, {"finish_reason", finish_reason}}});
  return chunk;
}

}  // namespace

struct FakeOpenAiServer::Impl {
  explicit Impl(std::unique_ptr<httplib::Server> with_server, std::string with_scheme)
      : server(std::move(with_server)), scheme(std::move(with_scheme)) {}

  void Listen();
  void Handle(const httplib::Request& request, httplib::Response& response) EXCLUDES(mu);
  Answer NextAnswer(const httplib::Request& request) EXCLUDES(mu);
  // Waits until Release is called or `gone` holds. True if `gone` holds.
  bool Hang(const std::function<bool()>& gone) EXCLUDES(mu);
  bool WaitFor(const std::function<bool()>& condition) EXCLUDES(mu);

  const std::unique_ptr<httplib::Server> server;
  const std::string scheme;
  int port = 0;
  std::jthread thread;

  base::Mutex mu;
  base::CondVar changed;
  std::deque<Answer> answers GUARDED_BY(mu);
  std::vector<Request> requests GUARDED_BY(mu);
  int models_status GUARDED_BY(mu) = 200;
  std::string models_body GUARDED_BY(mu) =
      R"({"object":"list","data":[{"id":"fake-model","object":"model","created":1700000000,"owned_by":"test"}]})";
  size_t disconnects GUARDED_BY(mu) = 0;
  bool released GUARDED_BY(mu) = false;
};

void FakeOpenAiServer::Impl::Listen() {
  server->new_task_queue = [] { return new httplib::ThreadPool(kThreads); };
  server->set_keep_alive_max_count(10'000);
  server->set_keep_alive_timeout(1);
  server->set_tcp_nodelay(true);
  const auto handle = [this](const httplib::Request& request, httplib::Response& response) {
    Handle(request, response);
  };
  server->Get("/v1/.*", handle);
  server->Post("/v1/.*", handle);
  int listener = -1;
  server->set_socket_options([&listener](socket_t socket) { listener = socket; });
  port = server->bind_to_any_port("127.0.0.1");
  listen(
      listener,
      kBacklog);  // again: cpp-httplib's backlog of 5 is too small for a test that starts many streams at the same time
  thread = std::jthread([this] { server->listen_after_bind(); });
  while (!server->is_running()) std::this_thread::yield();
}

FakeOpenAiServer::Answer FakeOpenAiServer::Impl::NextAnswer(const httplib::Request& request) {
  base::MutexLock lock(&mu);
  Request record{request.method, request.path, {}, request.body, request.remote_port};
  for (const auto& [name, value] : request.headers) {
    std::string lower = name;
    for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    record.headers[lower] = value;
  }
  requests.push_back(std::move(record));
  changed.NotifyAll();
  if (request.method == "GET") return {models_status, "application/json", {models_body}, End::kWhole, false, {}};
  if (answers.empty())
    return {500, "application/json", {R"({"error":{"message":"no response was pushed"}})"}, End::kWhole, false, {}};
  Answer answer = std::move(answers.front());
  answers.pop_front();
  return answer;
}

void FakeOpenAiServer::Impl::Handle(const httplib::Request& request, httplib::Response& response) {
  const auto answer = std::make_shared<Answer>(NextAnswer(request));
  if (answer->end == End::kHangUp) CutConnection(request.local_port, request.remote_port);
  if (answer->hang_before_head) Hang([] { return false; });
  response.status = answer->status;
  for (const auto& [name, value] : answer->headers) response.set_header(name, value);
  response.set_chunked_content_provider(answer->content_type, [this, answer](size_t, httplib::DataSink& sink) {
    for (const std::string& piece : answer->pieces) {
      if (!sink.write(piece.data(), piece.size())) return false;
    }
    if (answer->end == End::kHang && Hang([&] { return !sink.is_writable(); })) {
      base::MutexLock lock(&mu);
      ++disconnects;
      changed.NotifyAll();
    }
    if (answer->end != End::kWhole) return false;
    sink.done();
    return true;
  });
}

bool FakeOpenAiServer::Impl::Hang(const std::function<bool()>& gone) {
  while (!gone()) {
    base::MutexLock lock(&mu);
    if (released) return false;
    changed.WaitUntil(&mu, SteadyClock::now() + kLookEvery);
  }
  return true;
}

bool FakeOpenAiServer::Impl::WaitFor(const std::function<bool()>& condition) {
  const auto deadline = SteadyClock::now() + kFailureBound;
  base::MutexLock lock(&mu);
  while (!condition()) {
    if (!changed.WaitUntil(&mu, deadline)) return condition();
  }
  return true;
}

FakeOpenAiServer::FakeOpenAiServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) { impl_->Listen(); }

FakeOpenAiServer::FakeOpenAiServer()
    : FakeOpenAiServer(std::make_unique<Impl>(std::make_unique<httplib::Server>(), "http")) {}

FakeOpenAiServer::FakeOpenAiServer(const Tls& tls)
    : FakeOpenAiServer(std::make_unique<Impl>(
          std::make_unique<httplib::SSLServer>(tls.certificate_file.c_str(), tls.key_file.c_str()), "https")) {}

FakeOpenAiServer::~FakeOpenAiServer() {
  Release();
  impl_->server->stop();
  impl_->thread.join();  // joins the handlers' threads before the objects that they use are destroyed
}

std::string FakeOpenAiServer::url() const {
  return impl_->scheme + "://127.0.0.1:" + std::to_string(impl_->port) + "/v1";
}

void FakeOpenAiServer::Push(Answer answer) {
  base::MutexLock lock(&impl_->mu);
  impl_->answers.push_back(std::move(answer));
}

void FakeOpenAiServer::SetModels(int status, std::string body) {
  base::MutexLock lock(&impl_->mu);
  impl_->models_status = status;
  impl_->models_body = std::move(body);
}

void FakeOpenAiServer::Release() {
  base::MutexLock lock(&impl_->mu);
  impl_->released = true;
  impl_->changed.NotifyAll();
}

std::vector<FakeOpenAiServer::Request> FakeOpenAiServer::requests() const {
  base::MutexLock lock(&impl_->mu);
  return impl_->requests;
}

bool FakeOpenAiServer::WaitForRequests(size_t count) const {
  return impl_->WaitFor([&]() NO_THREAD_SAFETY_ANALYSIS { return impl_->requests.size() >= count; });
}

bool FakeOpenAiServer::WaitForDisconnects(size_t count) const {
  return impl_->WaitFor([&]() NO_THREAD_SAFETY_ANALYSIS { return impl_->disconnects >= count; });
}

std::string FakeOpenAiServer::ChatDelta(const std::string& content, int index) {
  return Event(ChatChunk(index, {{"content", content}}, nullptr));
}

std::string FakeOpenAiServer::ChatFinish(const std::string& reason, int index) {
  return Event(ChatChunk(index, Json::object(), reason));
}

std::string FakeOpenAiServer::TextDelta(const std::string& text, int index) {
  Json chunk = Chunk("text_completion");
  chunk["choices"] =
      Json::array({{{"index", index}, {"text", text}, {"logprobs", nullptr}, {"finish_reason", nullptr}}});
  return Event(chunk);
}

std::string FakeOpenAiServer::UsageChunk(int prompt_tokens, int completion_tokens) {
  Json chunk = Chunk("chat.completion.chunk");
  chunk["choices"] = Json::array();
  chunk["usage"] = {{"prompt_tokens", prompt_tokens},
                    {"completion_tokens", completion_tokens},
                    {"total_tokens", prompt_tokens + completion_tokens}};
  return Event(chunk);
}

}  // namespace runnel::testing
