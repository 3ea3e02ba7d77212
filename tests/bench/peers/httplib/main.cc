// A bridge with a thread for each connection: cpp-httplib's chunked content provider over a blocking gRPC stream, like
// in the examples of both libraries.
//
//   bench-httplib PORT SERVICE

#include <grpcpp/grpcpp.h>
#include <httplib.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "bridges/wire/event_json.h"
#include "runnel/v1/inference.grpc.pb.h"

namespace {

namespace v1 = runnel::v1;

// With more connections than threads, some would wait indefinitely.
constexpr size_t kThreads = 4000;

struct Stream {
  grpc::ClientContext context;
  std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>> reader;
  v1::GenerateResponse response;
  std::string bytes;

  // Waits for the next event and writes it. False at the end.
  bool WriteNext(httplib::DataSink* sink) {
    if (!reader->Read(&response)) return false;
    const v1::GenerationEvent& event = response.event();
    bytes = "id: " + event.generation_id() + ":" + std::to_string(event.seq()) + "\nevent: ";
    bytes.append(runnel::bridge::EventName(event)).append("\ndata: ");
    runnel::bridge::AppendEventJson(event.generation_id(), event, &bytes);
    bytes += "\n\n";
    return sink->write(bytes.data(), bytes.size());
  }
};

v1::GenerateRequest RequestOf(const nlohmann::json& body) {
  v1::GenerateRequest request;
  request.set_prompt(body.at("prompt"));
  request.set_max_tokens(body.at("max_tokens"));
  request.mutable_sampling()->set_seed(body.at("seed"));
  request.mutable_detach_timeout();
  for (const auto& [key, value] : body.at("metadata").items()) (*request.mutable_metadata())[key] = value;
  return request;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: bench-httplib PORT SERVICE\n");
    return 2;
  }
  const auto stub = v1::InferenceService::NewStub(grpc::CreateChannel(argv[2], grpc::InsecureChannelCredentials()));
  httplib::Server server;
  server.new_task_queue = [] { return new httplib::ThreadPool(kThreads); };
  server.set_tcp_nodelay(true);
  server.Post("/v1/generations", [&stub](const httplib::Request& request, httplib::Response& response) {
    auto stream = std::make_shared<Stream>();
    const v1::GenerateRequest generate = RequestOf(nlohmann::json::parse(request.body));
    stream->reader = stub->Generate(&stream->context, generate);
    response.set_chunked_content_provider(
        "text/event-stream; charset=utf-8",
        [stream](size_t, httplib::DataSink& sink) {
          if (stream->WriteNext(&sink)) return true;
          if (!sink.is_writable()) return false;
          sink.done();
          return true;
        },
        [stream](bool) { stream->context.TryCancel(); });
  });
  return server.listen("127.0.0.1", std::atoi(argv[1])) ? 0 : 1;
}
