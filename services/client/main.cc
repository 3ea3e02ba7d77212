// A gRPC client for the command line: streams one generation to standard output and verifies that it is complete. Also
// the shortest complete example of how an internal service calls Runnel.

#include <grpcpp/grpcpp.h>

#include <cstdio>
#include <iostream>
#include <memory>
#include <string>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "runnel/v1/inference.grpc.pb.h"
#include "services/base/grpc_status.h"
#include "services/base/standard_streams.h"
#include "services/client/response_verifier.h"

ABSL_FLAG(std::string, target, "127.0.0.1:50051", "address of the inference service: host:port");
ABSL_FLAG(std::string, resume, "", "id of a generation to read instead of starting one");
ABSL_FLAG(uint64_t, after, 0, "seq of the last event already read, with --resume");
ABSL_FLAG(uint32_t, after_epoch, 0, "epoch of that event, with --after; 0: it had none");
ABSL_FLAG(bool, events, false, "output of each event as a line of JSON-like text instead of the joined text");
ABSL_FLAG(uint32_t, max_tokens, 256, "limit of the output (tokens)");
ABSL_FLAG(std::string, metadata, "", "metadata for the engine, comma-separated: key=value each");
ABSL_FLAG(uint64_t, seed, 0, "seed for sampling; 0: random");

namespace runnel {
namespace {

// The tool calls, which are not part of standard output, because that is the text.
void PrintCalls(const client::ResponseVerifier& response, const v1::Done& done) {
  for (const v1::ChoiceEnd& end : done.choices()) {
    for (const v1::PartEnd& part : end.parts()) {
      if (part.kind() != v1::PART_KIND_TOOL_CALL) continue;
      std::cerr << "\n" << (part.complete() ? "call " : "incomplete call ") << part.id() << ": " << part.name();
      const auto choice = response.choices().find(end.index());
      if (choice == response.choices().end() || !choice->second.contains(part.index())) continue;
      std::cerr << "(" << choice->second.at(part.index()).content << ")";
    }
  }
}

// Reads to the terminal event. Returns 0, or 1 if the generation failed or the stream was cut.
template <typename Response>
int Read(grpc::ClientContext* context, grpc::ClientReader<Response>* reader, uint64_t after) {
  client::ResponseVerifier verifier(after);
  Response response;
  std::string id;
  while (reader->Read(&response)) {
    const v1::GenerationEvent& event = response.event();
    id = event.generation_id();
    if (!verifier.Apply(event)) {
      std::cerr << "runnel-client: events are missing after " << verifier.last_seq() << "\n";
      context->TryCancel();
      return 1;
    }
    if (absl::GetFlag(FLAGS_events)) {
      std::cout << event.ShortDebugString() << std::endl;
    } else if (event.has_delta()) {
      std::cout << event.delta().text() << std::flush;
    } else if (event.has_gap()) {
      const bool lost = event.gap().reason() == v1::GAP_REASON_TAIL_LOST;
      std::cerr << "\nrunnel-client: " << id << (lost ? " has lost events that were read" : " ends before --after")
                << ": its text follows from the beginning\n";
      for (const v1::ChoiceText& choice : event.gap().snapshot()) std::cout << choice.text() << std::flush;
    }
    if (event.has_failed()) {
      std::cerr << "\nrunnel-client: " << id << " failed: " << event.failed().code() << ": " << event.failed().message()
                << "\n";
      return 1;
    }
    if (event.has_done()) {
      const std::string wrong = verifier.from_beginning() ? verifier.Check(event.done()) : "";
      if (wrong.empty()) PrintCalls(verifier, event.done());
      std::cerr << "\n"
                << id << ":" << event.seq() << (event.epoch() == 0 ? "" : absl::StrCat(".", event.epoch())) << " "
                << (!wrong.empty()              ? wrong
                    : verifier.from_beginning() ? "verified"
                                                : "read to the end")
                << "\n";
      return wrong.empty() ? 0 : 1;
    }
  }
  const absl::Status status = base::FromGrpcStatus(reader->Finish());
  if (status.ok() && after > 0) return 0;  // no event follows the cursor
  std::cerr << "runnel-client: " << status.ToString() << "\n";
  if (!id.empty()) {
    std::cerr << "to continue, use --resume=" << id << " --after=" << verifier.last_seq();
    if (verifier.epoch() != 0) std::cerr << " --after_epoch=" << verifier.epoch();
    std::cerr << "\n";
  }
  return 1;
}

int Run(const std::string& prompt) {
  const auto stub = v1::InferenceService::NewStub(
      grpc::CreateChannel(absl::GetFlag(FLAGS_target), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  if (!absl::GetFlag(FLAGS_resume).empty()) {
    v1::ResumeGenerationRequest request;
    request.set_generation_id(absl::GetFlag(FLAGS_resume));
    request.set_after_seq(absl::GetFlag(FLAGS_after));
    request.set_after_epoch(absl::GetFlag(FLAGS_after_epoch));
    const auto reader = stub->ResumeGeneration(&context, request);
    return Read(&context, reader.get(), request.after_seq());
  }
  v1::GenerateRequest request;
  auto* message = request.add_messages();
  message->set_role(v1::CHAT_ROLE_USER);
  message->set_content(prompt);
  request.set_max_tokens(absl::GetFlag(FLAGS_max_tokens));
  if (absl::GetFlag(FLAGS_seed) != 0) request.mutable_sampling()->set_seed(absl::GetFlag(FLAGS_seed));
  for (const auto& pair : absl::StrSplit(absl::GetFlag(FLAGS_metadata), ',', absl::SkipEmpty())) {
    const std::pair<std::string, std::string> entry = absl::StrSplit(pair, absl::MaxSplits('=', 1));
    (*request.mutable_metadata())[entry.first] = entry.second;
  }
  const auto reader = stub->Generate(&context, request);
  return Read(&context, reader.get(), 0);
}

}  // namespace
}  // namespace runnel

int main(int argc, char** argv) {
  runnel::base::OpenStandardStreams();
  absl::SetProgramUsageMessage("Streams one generation over gRPC: runnel-client [flags] PROMPT...");
  std::vector<char*> words = absl::ParseCommandLine(argc, argv);
  words.erase(words.begin());
  if (words.empty() && absl::GetFlag(FLAGS_resume).empty()) {
    std::cerr << "runnel-client: the prompt is missing; usage: runnel-client [flags] PROMPT..., see --help\n";
    return 2;
  }
  return runnel::Run(absl::StrJoin(words, " "));
}
