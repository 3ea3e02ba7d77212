#pragma once

#include "bridges/link/subscription.h"
#include "bridges/server/io_threads.h"

namespace runnel::sse {

// Cancels the generation of `subscription`, unless it has ended or is not opened yet, so that its id is not known.
void CancelUnlessEnded(bridge::IoThread* thread, const bridge::Subscription& subscription);

}  // namespace runnel::sse
