#pragma once

#include <string>

#include "bridges/base/byte_budget.h"

namespace runnel::sse {

// Bytes that were received after a request, with their share of the budget.
struct ReadAhead {
  std::string bytes;
  bridge::ByteBudget::Reservation reservation;
};

}  // namespace runnel::sse
