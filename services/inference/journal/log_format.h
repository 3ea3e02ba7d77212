#pragma once

#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "services/inference/journal/journal_context.h"

namespace runnel::inference {

// Checks that the keys under the prefix belong to this deployment, by the key P:format: the version of the keys, and a
// name that only those know that have the same --log_key_file. The first replica writes it. FailedPrecondition: it is
// another deployment's, or something else; nothing must be written then. Unavailable: the store does not answer.
void CheckFormat(const JournalContext& context, absl::AnyInvocable<void(absl::Status)> done);

}  // namespace runnel::inference
