#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace runnel::testing {

// An OpenAI-compatible server whose answers a test writes beforehand, on a real port of 127.0.0.1, over HTTP/1.1 with
// or without TLS. Answers any path below /v1. Serves 64 connections at once. Thread-safe.
class FakeOpenAiServer {
 public:
  enum class End {
    kWhole,   // the response ends as it should
    kCut,     // the connection is closed in the middle of it
    kHangUp,  // the connection is closed before the status line
    kHang,    // nothing more comes until the client goes away or Release is called, then as kCut
  };
  struct Answer {
    int status = 200;
    std::string content_type = "text/event-stream";
    std::vector<std::string> pieces;  // each in a chunk and a segment of its own
    End end = End::kWhole;
    bool hang_before_head = false;  // as kHang, but before the status line
    std::map<std::string, std::string> headers;
  };
  struct Request {
    std::string method;
    std::string path;
    std::map<std::string, std::string> headers;  // names in lower case
    std::string body;
    int client_port = 0;  // tells connections apart
  };
  struct Tls {
    std::string certificate_file;
    std::string key_file;
  };

  FakeOpenAiServer();
  explicit FakeOpenAiServer(const Tls& tls);
  ~FakeOpenAiServer();

  // "http://127.0.0.1:port/v1" or https.
  std::string url() const;

  // The answer to the next POST that has none yet. A POST without an answer gets status 500.
  void Push(Answer answer);
  // The answer to every GET /v1/models; before, it is a list of the one model "fake-model".
  void SetModels(int status, std::string body);
  // Lets everything that hangs come to its end.
  void Release();

  std::vector<Request> requests() const;
  // False after 10 s.
  bool WaitForRequests(size_t count) const;
  // Waits until `count` hanging answers have seen their client go away. False after 10 s.
  bool WaitForDisconnects(size_t count) const;

  // `data: ` + one chat chunk with `content` of choice `index`, as an event.
  static std::string ChatDelta(const std::string& content, int index = 0);
  static std::string ChatFinish(const std::string& reason, int index = 0);
  static std::string TextDelta(const std::string& text, int index = 0);
  static std::string UsageChunk(int prompt_tokens, int completion_tokens);
  static std::string DoneEvent() { return "data: [DONE]\n\n"; }

 private:
  struct Impl;
  explicit FakeOpenAiServer(std::unique_ptr<Impl> impl);

  const std::unique_ptr<Impl> impl_;
};

}  // namespace runnel::testing
