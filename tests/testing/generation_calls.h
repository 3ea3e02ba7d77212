#pragma once

#include <future>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/inference/generation/generation_manager.h"

namespace runnel::testing {

// The calls of GenerationManager for a test that waits for each.
inline absl::StatusOr<inference::GenerationManager::Started> StartNow(inference::GenerationManager* manager,
                                                                      inference::GenerationRequest request,
                                                                      uint64_t fingerprint) {
  std::promise<absl::StatusOr<inference::GenerationManager::Started>> answer;
  manager->Start(std::move(request), fingerprint, [&](auto started) { answer.set_value(std::move(started)); });
  return answer.get_future().get();
}

inline absl::StatusOr<std::shared_ptr<inference::Generation>> FindNow(inference::GenerationManager* manager,
                                                                      const std::string& id,
                                                                      const std::string& principal) {
  std::promise<absl::StatusOr<std::shared_ptr<inference::Generation>>> answer;
  manager->Find(id, principal, [&](auto found) { answer.set_value(std::move(found)); });
  return answer.get_future().get();
}

inline absl::Status DeleteNow(inference::GenerationManager* manager, const std::string& id,
                              const std::string& principal) {
  std::promise<absl::Status> answer;
  manager->Delete(id, principal, [&](absl::Status status) { answer.set_value(std::move(status)); });
  return answer.get_future().get();
}

}  // namespace runnel::testing
