#include "services/inference/journal/log_format.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "services/inference/journal/store_commands.h"

namespace runnel::inference {
namespace {

constexpr std::string_view kVersion = "runnel-log 1 ";
constexpr std::string_view kSample = "the key file of this deployment";

absl::Status CheckValue(const ValueCipher& cipher, const std::string& value) {
  if (!value.starts_with("runnel-log ")) {
    return absl::FailedPreconditionError("another application has keys with this prefix: use another --log_prefix");
  }
  if (!value.starts_with(kVersion)) {
    return absl::FailedPreconditionError(
        "another release has written keys in another format: use another --log_prefix, or the same release");
  }
  std::vector<std::string> names = cipher.OtherNamesOf(kSample);
  names.push_back(cipher.encrypts() ? cipher.NameOf(kSample) : "plain");
  if (std::find(names.begin(), names.end(), value.substr(kVersion.size())) != names.end()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      "another deployment uses this prefix, or this replica has another key file: use another --log_prefix, or the "
      "same --log_key_file on all replicas");
}

}  // namespace

void CheckFormat(const JournalContext& context, absl::AnyInvocable<void(absl::Status)> done) {
  const ValueCipher& cipher = *context.cipher;
  const std::string ours = std::string(kVersion) + (cipher.encrypts() ? cipher.NameOf(kSample) : "plain");
  SendAll(context.link, {{"SET", context.keys->Format(), ours, "NX"}, {"GET", context.keys->Format()}},
          [&cipher, &context, ours, done = std::move(done)](const std::vector<StoreReply>& replies) mutable {
            // A store that is full or read-only can still be read.
            if (!ConnectionStatus(replies).ok()) return done(absl::UnavailableError("the store does not answer"));
            if (replies[1].error == "WRONGTYPE") {
              return done(absl::FailedPreconditionError(
                  "another application has keys with this prefix: use another --log_prefix"));
            }
            if (replies[1].nil) return done(absl::OkStatus());
            absl::Status status = CheckValue(cipher, replies[1].text);
            // The key file has a new first key.
            if (status.ok() && replies[1].text != ours) {
              SendAll(context.link, {{"SET", context.keys->Format(), ours}}, [](const auto&) {});
            }
            done(std::move(status));
          });
}

}  // namespace runnel::inference
