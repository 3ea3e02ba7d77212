#pragma once

#include "bridges/base/bridge_metrics.h"
#include "bridges/base/options.h"
#include "bridges/websocket/options.h"
#include "bridges/wire/http_policy.h"

namespace runnel::websocket {

// Shared by all connections. Constant; must outlive the threads of the bridge.
struct WsContext {
  bridge::BridgeOptions bridge;
  WsOptions options;
  const bridge::HttpPolicy* policy = nullptr;
  bridge::BridgeMetrics* metrics = nullptr;
};

}  // namespace runnel::websocket
