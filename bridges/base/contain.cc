#include "bridges/base/contain.h"

#include <spdlog/spdlog.h>

#include "bridges/base/bridge_metrics.h"

namespace runnel::bridge {

void ReportException(BridgeMetrics* metrics, const char* what) {
  metrics->connection_exceptions.Increment();
  spdlog::error("an exception ended a connection: {}", what);
}

}  // namespace runnel::bridge
