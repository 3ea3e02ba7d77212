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

// An inference service in this process that does nothing by itself: a test takes the commands that bridges send over
// their Links, one after the other, and says what is answered. It greets each Link. Thread-safe; every wait ends after
// 10 s, which is a failure and not a pace.
class FakeInferenceService {
 public:
  struct Options {
    uint32_t max_attachments = 1000;
    int64_t retention_seconds = 600;
    bool greet = true;
    std::string id_prefix;            // four characters; empty: not said
    uint64_t max_request_bytes = 0;   // 0: not said
    int64_t claim_lease_seconds = 0;  // 0: it does not know claims
  };

  // Listens on a free port of 127.0.0.1. (Two constructors: GCC does not take `Options()` as a default here.)
  FakeInferenceService() : FakeInferenceService(Options()) {}
  explicit FakeInferenceService(const Options& options);
  ~FakeInferenceService();

  // host:port
  std::string target() const;
  // Ends all calls without a status from the handlers, as a killed process does, and listens no more.
  void Stop();
  // Listens again on the same port.
  void Restart();
  // Of Links that are opened from now on.
  void SetIdPrefix(const std::string& prefix);

  // A command and the Link that it came over: 0 for the first that was ever opened.
  struct Command {
    int link = 0;
    v1::LinkRequest request;

    uint32_t attachment() const;
  };
  // The next command, in the order of arrival; nullopt if none comes.
  std::optional<Command> NextCommand();
  // Commands that have come and were not taken.
  size_t pending_commands() const;

  // Links opened since the beginning, and those open now.
  int links_opened() const;
  int links_open() const;
  // False if there are not `count` by then.
  bool WaitForLinksOpened(int count);

  // What `link` is to be sent, in the order of the calls; nothing if it has ended.
  void Send(int link, v1::LinkResponse response);
  // Ends a Link with a status.
  void EndLink(int link, const absl::Status& status);

  // Answers to one command.
  void Attach(const Command& command, const std::string& generation_id,
              v1::GenerationStatus status = v1::GENERATION_STATUS_RUNNING, uint64_t last_seq = 0,
              bool existing = false);
  void Reject(const Command& command, const absl::Status& status);
  void Detach(const Command& command);
  // To a claim: held from now on; names a generation; or held by somebody else.
  void Claimed(const Command& command);
  void Exists(const Command& command, const std::string& generation_id);
  void Held(const Command& command);
  // Events of the attachment of `command`, in one batch.
  void SendEvents(const Command& command, std::vector<v1::GenerationEvent> events);

  // The unary calls; without a handler they answer UNIMPLEMENTED. Handlers run on gRPC's threads.
  struct Handlers {
    std::function<absl::StatusOr<v1::Generation>(const std::string& id)> get;
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
