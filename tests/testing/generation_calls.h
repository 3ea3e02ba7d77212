#pragma once

#include <future>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/inference/generation/generation_manager.h"

namespace runnel::testing {

// Blocking forms of the calls of GenerationManager.
inline absl::StatusOr<inference::GenerationManager::Started> StartNow(inference::GenerationManager* manager,
                                                                      inference::GenerationRequest request,
                                                                      uint64_t fingerprint) {
  std::promise<absl::StatusOr<inference::GenerationManager::Started>> result;
  manager->Start(std::move(request), fingerprint, [&](auto started) { result.set_value(std::move(started)); });
  return result.get_future().get();
}

inline absl::StatusOr<std::shared_ptr<inference::Generation>> FindNow(inference::GenerationManager* manager,
                                                                      const std::string& id,
                                                                      const std::string& principal) {
  std::promise<absl::StatusOr<std::shared_ptr<inference::Generation>>> result;
  manager->Find(id, principal, [&](auto found) { result.set_value(std::move(found)); });
  return result.get_future().get();
}

inline absl::Status DeleteNow(inference::GenerationManager* manager, const std::string& id,
                              const std::string& principal) {
  std::promise<absl::Status> result;
  manager->Delete(id, principal, [&](absl::Status status) { result.set_value(std::move(status)); });
  return result.get_future().get();
}

}  // namespace runnel::testing
