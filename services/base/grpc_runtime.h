#pragma once

namespace runnel::base {

// To be called by a process that uses gRPC, before its first call and after InitLogging.
//
// gRPC's log goes to spdlog at debug level, because the process logs everything that concerns a user. Abseil's deadlock
// detection is turned off: in a distribution that builds Abseil for debugging, each lock within gRPC would update a
// graph that all threads share.
void SetUpGrpc();

}  // namespace runnel::base
