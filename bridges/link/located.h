#pragma once

#include <memory>
#include <string>

#include "absl/time/time.h"
#include "bridges/link/route.h"

namespace runnel::bridge {

struct GrpcStub;

// A unary call about a generation, while it looks for the replica that has it. It may be sent several times.
struct Search {
  std::string generation_id;  // empty: any replica will do
  absl::Duration deadline;    // when looking ends
  Route route;
};

// The replica to call.
struct Located {
  std::shared_ptr<GrpcStub> stub;
  std::string id_prefix;
  bool shared_log = false;
};

}  // namespace runnel::bridge
