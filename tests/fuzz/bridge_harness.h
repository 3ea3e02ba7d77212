#pragma once

#include <spdlog/spdlog.h>

#include <array>
#include <boost/asio/post.hpp>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "bridges/server/server.h"
#include "google/protobuf/stubs/logging.h"
#include "tests/testing/fake_inference_service.h"

namespace runnel::fuzz {

// Starts a service that replies to every command of a Link and lives as long as the process. A generation is one word
// long, and FakeId('c') does not exist. If `with_silence`, FakeId('b') sends no events. Returns the service's address.
// GetGeneration finds only FakeId('a').
inline std::string StartReplyingService(bool with_silence) {
  using testing::FakeId;
  auto* const service = new testing::FakeInferenceService();
  testing::FakeInferenceService::Handlers handlers;
  handlers.get = [](const std::string& id) -> absl::StatusOr<v1::Generation> {
    if (id != FakeId('a')) return absl::NotFoundError("no such generation");
    v1::Generation generation;
    generation.set_id(id);
    generation.set_status(v1::GENERATION_STATUS_RUNNING);
    return generation;
  };
  handlers.cancel = [](const std::string&) { return v1::CancelGenerationResponse(); };
  handlers.remove = [](const std::string&) { return absl::OkStatus(); };
  handlers.list_models = [] { return v1::ListModelsResponse(); };
  service->SetHandlers(std::move(handlers));
  std::thread([service, with_silence] {
    for (;;) {
      const auto command = service->NextCommand();
      if (!command) continue;
      const v1::LinkRequest& request = command->request;
      const std::string id = request.has_attach() ? request.attach().generation_id() : FakeId('a');
      if (!request.has_attach() && !request.has_generate()) continue;
      if (id == FakeId('c')) {
        service->Reject(*command, absl::NotFoundError("no such generation"));
        continue;
      }
      service->Attach(*command, id, v1::GENERATION_STATUS_RUNNING, 3);
      if (with_silence && id == FakeId('b')) continue;
      service->SendEvents(*command,
                          {testing::StartedEvent(), testing::DeltaEvent(2, "word"), testing::DoneEvent(3, "word")});
      service->Detach(*command);
    }
  }).detach();
  return service->target();
}

// The bridges of a target, the second of which requires a key. They live as long as the process. `Bridge` is made of
// the address of a service of StartReplyingService and of whether it requires a key.
template <class Bridge>
std::array<std::unique_ptr<Bridge>, 2>& Bridges(bool with_silence) {
  static auto* const bridges = [with_silence] {
    google::protobuf::SetLogHandler(nullptr);
    spdlog::set_level(spdlog::level::off);
    const std::string service = StartReplyingService(with_silence);
    auto* const made = new std::array<std::unique_ptr<Bridge>, 2>();
    for (const bool with_key : {false, true}) (*made)[with_key] = std::make_unique<Bridge>(service, with_key);
    return made;
  }();
  return *bridges;
}

// Returns when the single io thread of `server` has read from all sockets and run the resulting handlers.
inline void Settle(bridge::Server* server) {
  for (int round = 0; round < 3; ++round) {
    std::promise<void> done;
    boost::asio::post(server->threads()[0].io, [&done] { done.set_value(); });
    done.get_future().wait();
  }
}

}  // namespace runnel::fuzz
