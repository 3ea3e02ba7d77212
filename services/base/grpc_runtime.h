#pragma once

namespace runnel::base {

// What a process that uses gRPC does first, before its first call and after InitLogging.
//
// gRPC's own log goes to spdlog at debug level: what concerns a user, our own lines say. Abseil's search for deadlocks
// is off: a distribution may build Abseil for debugging, and then each lock within gRPC takes part in a graph that all
// threads share.
void SetUpGrpc();

}  // namespace runnel::base
