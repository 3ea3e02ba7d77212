#pragma once

#include "bridges/wire/http_response.h"

namespace runnel::bridge {

struct IoThread;

// GET /health on the API port, without a key, as clients of vLLM and llama.cpp use it: 200 with {"status":"ok"} when
// /readyz of the admin port is 200, otherwise 503 with the reason as an error.
HttpResponse HealthResponse(const IoThread& thread);

}  // namespace runnel::bridge
