#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define RUNNEL_CONCAT_INNER(a, b) a##b
#define RUNNEL_CONCAT(a, b) RUNNEL_CONCAT_INNER(a, b)

// Returns the status of `expr` from the enclosing function unless it is OK.
#define RETURN_IF_ERROR(expr)                      \
  do {                                             \
    absl::Status runnel_status = (expr);           \
    if (!runnel_status.ok()) return runnel_status; \
  } while (false)

// ASSIGN_OR_RETURN(auto value, FunctionThatReturnsStatusOr());
#define ASSIGN_OR_RETURN(lhs, expr) RUNNEL_ASSIGN_OR_RETURN_INNER(RUNNEL_CONCAT(runnel_result_, __LINE__), lhs, expr)
#define RUNNEL_ASSIGN_OR_RETURN_INNER(result, lhs, expr) \
  auto result = (expr);                                  \
  if (!result.ok()) return std::move(result).status();   \
  lhs = std::move(result).value()
