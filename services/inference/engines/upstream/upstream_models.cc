#include "services/inference/engines/upstream/upstream_models.h"

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <chrono>
#include <functional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/strings.h"
#include "services/inference/engines/upstream/response_parser.h"

namespace runnel::inference {
namespace {

constexpr absl::Duration kLongestWait = absl::Seconds(10);
// How often it looks whether the service is being stopped.
constexpr std::chrono::milliseconds kStopInterval(100);
constexpr int kOk = 200;
constexpr int kUnauthorized = 401;
constexpr int kForbidden = 403;
constexpr size_t kMaxModelsBytes = size_t{4} << 20;

// Reads the response to GET /models.
class ModelsReader final : public UpstreamResponseParser::Handler {
 public:
  bool OnHead(const UpstreamHead&) override { return true; }
  bool OnBody(std::string_view bytes) override {
    body.append(bytes);
    return body.size() <= kMaxModelsBytes;
  }
  std::string body;
};

Awaitable<void> GetModels(UpstreamConnection* connection, const UpstreamTarget* target, std::string* problem,
                          UpstreamResponseParser* parser) {
  using State = UpstreamResponseParser::State;
  const UpstreamConnection::Connected connected = co_await connection->Connect();
  if (connected != UpstreamConnection::Connected::kYes) {
    *problem = connected == UpstreamConnection::Connected::kNo
                   ? "the connection failed"
                   : "the TLS connection failed, or its certificate is not trusted";
    co_return;
  }
  *problem = "it sends no response";
  const std::string request = target->Request("/models", "");
  const bool sent = co_await connection->Write(request);
  if (!sent) co_return;
  std::vector<char> buffer(16 << 10);
  while (parser->state() == State::kReading) {
    const size_t size = co_await connection->Read(buffer);
    if (size == 0 && !parser->begun()) *problem = "it closed the connection";
    size == 0 ? parser->OnEof() : parser->Feed({buffer.data(), size});
  }
  if (parser->state() == State::kUnwanted)
    *problem = absl::StrCat("its response is longer than ", kMaxModelsBytes, " bytes");
  if (parser->state() == State::kFailed && parser->begun()) *problem = std::string(parser->error());
  if (parser->state() == State::kDone) *problem = "";
}

// A response to GET /models.
struct ModelsResponse {
  std::string where;    // the URL, for messages
  std::string problem;  // why there is no whole response; empty if there is one
  int status = 0;
  std::string body;

  absl::Status Unavailable(std::string_view why) const {
    return absl::UnavailableError(absl::StrCat(where, ": ", base::ToAbsl(why)));
  }
  absl::Status UnexpectedStatus() const { return Unavailable(absl::StrCat("it responds with HTTP ", status)); }
};

ModelsResponse AskOne(const UpstreamTarget& target, const std::function<bool()>& stopped) {
  const UpstreamUrl& url = target.options().url;
  ModelsResponse response;
  response.where = absl::StrCat("upstream ", url.tls ? "https://" : "http://", url.authority, url.base_path, "/models");
  response.problem = "it sends no response";
  net::io_context io(1);
  UpstreamResolver resolver;
  UpstreamConnection connection(&io, &resolver, &target);
  ModelsReader reader;
  UpstreamResponseParser parser({}, &reader);
  net::co_spawn(io, GetModels(&connection, &target, &response.problem, &parser), net::detached);
  const auto until = std::chrono::steady_clock::now() +
                     absl::ToChronoNanoseconds(target.options().connect_timeout +
                                               std::min(target.options().first_byte_timeout, kLongestWait));
  while (!io.stopped() && std::chrono::steady_clock::now() < until && !(stopped && stopped())) {
    io.run_until(std::min(until, std::chrono::steady_clock::now() + kStopInterval));
  }
  connection.Close();
  io.restart();
  io.run();
  response.status = parser.status();
  response.body = std::move(reader.body);
  return response;
}

absl::StatusOr<UpstreamModel> FirstModel(const UpstreamTarget& target, const std::function<bool()>& stopped) {
  const ModelsResponse response = AskOne(target, stopped);
  if (!response.problem.empty()) return response.Unavailable(response.problem);
  if (response.status != kOk) return response.UnexpectedStatus();
  auto model = ParseFirstModel(response.body);
  if (!model.ok()) {
    return response.Unavailable(absl::StrCat(model.status().message(), "; set --upstream_model"));
  }
  return model;
}

}  // namespace

absl::StatusOr<UpstreamModel> AskForModel(const std::vector<std::unique_ptr<UpstreamTarget>>& targets,
                                          const std::function<bool()>& stopped) {
  absl::StatusOr<UpstreamModel> model = absl::UnavailableError("no upstream");
  for (size_t i = 0; i < targets.size() && !model.ok(); ++i) model = FirstModel(*targets[i], stopped);
  return model;
}

absl::Status CheckModels(const std::vector<std::unique_ptr<UpstreamTarget>>& targets,
                         const std::function<bool()>& stopped) {
  absl::Status status = absl::UnavailableError("no upstream");
  for (const auto& target : targets) {
    const ModelsResponse response = AskOne(*target, stopped);
    const bool serves = response.problem.empty() && response.status < 500 && response.status != kUnauthorized &&
                        response.status != kForbidden;
    if (serves) return absl::OkStatus();
    status = response.problem.empty() ? response.UnexpectedStatus() : response.Unavailable(response.problem);
  }
  return status;
}

}  // namespace runnel::inference
