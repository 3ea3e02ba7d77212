#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runnel/v1/inference.pb.h"
#include "tests/testing/fake_events.h"

namespace runnel::testing {

// An inference service in this process that a test controls: the test takes the commands that bridges send over their
// Links, one after another, and sends the replies. Only the hello of each Link is sent automatically. Thread-safe;
// every wait fails after 10 s, which only bounds a failure.
class FakeInferenceService {
 public:
  struct Options {
    uint32_t max_attachments = 1000;
    int64_t retention_seconds = 600;
    bool greet = true;
    std::string id_prefix;            // four characters; empty: not sent
    uint64_t max_request_bytes = 0;   // 0: not sent
    int64_t claim_lease_seconds = 0;  // 0: no support for claims
    bool shared_log = false;
  };

  // Listens on a free port of 127.0.0.1. Two constructors, because GCC does not accept `Options()` as a default here.
  FakeInferenceService() : FakeInferenceService(Options()) {}
  explicit FakeInferenceService(const Options& options);
  ~FakeInferenceService();

  // host:port
  std::string target() const;
  // Ends all calls without a status from the handlers, like a killed process, and stops listening.
  void Stop();
  // Listens again on the same port.
  void Restart();
  // Sets the id_prefix in the hello of Links opened from now on.
  void SetIdPrefix(const std::string& prefix);

  // A command and the number of its Link; the first Link ever opened is 0.
  struct Command {
    int link = 0;
    v1::LinkRequest request;

    uint32_t attachment() const;
  };
  // Waits for the next command, in the order of arrival; nullopt if none arrives.
  std::optional<Command> NextCommand();
  // Number of commands that have arrived and were not taken.
  size_t pending_commands() const;

  // Number of Links opened since the start, and number of Links open now.
  int links_opened() const;
  int links_open() const;
  // Waits until `count` Links have been opened since the start. False after 10 s.
  bool WaitForLinksOpened(int count);

  // Sends a response over `link`, in the order of the calls. Does nothing if the Link has ended.
  void Send(int link, v1::LinkResponse response);
  // Ends a Link with a status.
  void EndLink(int link, const absl::Status& status);

  // Replies to one command.
  void Attach(const Command& command, const std::string& generation_id,
              v1::GenerationStatus status = v1::GENERATION_STATUS_RUNNING, uint64_t last_seq = 0,
              bool existing = false);
  void Reject(const Command& command, const absl::Status& status);
  void Detach(const Command& command);
  // Replies to a claim: held from now on; the request_id names a generation; or held by another client.
  void Claimed(const Command& command);
  void Exists(const Command& command, const std::string& generation_id);
  void Held(const Command& command);
  // Sends events of the attachment of `command` in one batch.
  void SendEvents(const Command& command, std::vector<v1::GenerationEvent> events);

  // Handlers of the unary calls, which fail with UNIMPLEMENTED without one. They run on gRPC's threads.
  struct Handlers {
    std::function<absl::StatusOr<v1::Generation>(const std::string& id)> get;
    // The serialized v1::KeptInput, of which each call returns a few bytes. Empty: none is kept.
    std::function<std::string(const std::string& id)> input;
    std::function<absl::StatusOr<v1::CancelGenerationResponse>(const std::string& id)> cancel;
    std::function<absl::Status(const std::string& id)> remove;
    std::function<absl::StatusOr<v1::ListModelsResponse>()> list_models;
  };
  void SetHandlers(Handlers handlers);

 private:
  class Service;
  class LinkReactor;

  const Options options_;
  std::unique_ptr<Service> service_;
};

}  // namespace runnel::testing
