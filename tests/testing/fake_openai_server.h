#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace runnel::testing {

// An OpenAI-compatible server with responses that the test provides in advance, on a real port of 127.0.0.1, over
// HTTP/1.1 with or without TLS. Serves any path below /v1, and 64 connections at the same time. Thread-safe.
class FakeOpenAiServer {
 public:
  enum class End {
    kWhole,   // the response ends normally
    kCut,     // the connection is closed in the middle of it
    kHangUp,  // the connection is closed before the status line
    kHang,    // nothing more is sent until the client disconnects or Release is called, then as kCut
  };
  struct Answer {
    int status = 200;
    std::string content_type = "text/event-stream";
    std::vector<std::string> pieces;  // each in a separate chunk and segment
    End end = End::kWhole;
    bool hang_before_head = false;  // as kHang, but before the status line
    std::map<std::string, std::string> headers;
  };
  struct Request {
    std::string method;
    std::string path;
    std::map<std::string, std::string> headers;  // names in lower case
    std::string body;
    int client_port = 0;  // identifies the connection
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

  // Adds the response to the next POST that has none yet. A POST without one gets status 500.
  void Push(Answer answer);
  // Sets the response to GET /v1/models; until then it is a list of one model, "fake-model".
  void SetModels(int status, std::string body);
  // Ends all responses that hang.
  void Release();

  std::vector<Request> requests() const;
  // False after 10 s.
  bool WaitForRequests(size_t count) const;
  // Waits until `count` hanging responses have noticed that their client disconnected. False after 10 s.
  bool WaitForDisconnects(size_t count) const;

  // An SSE event with one chat chunk: `content` of choice `index`.
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
