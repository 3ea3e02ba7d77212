#pragma once

#include "bridges/server/io_threads.h"
#include "bridges/wire/http_policy.h"

namespace runnel::bridge {

// GET /health on the API port, as clients ask vLLM and llama.cpp, without a key: 200 with {"status":"ok"} where /readyz
// of the admin port is 200, else 503 with the reason as an error.
HttpResponse HealthResponse(const IoThread& thread);

}  // namespace runnel::bridge
