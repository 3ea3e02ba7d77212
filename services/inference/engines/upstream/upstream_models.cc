#include "services/inference/engines/upstream/upstream_models.h"

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "services/base/strings.h"
#include "services/inference/engines/upstream/response_parser.h"

namespace runnel::inference {
namespace {

constexpr absl::Duration kLongestSilence = absl::Seconds(10);
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

absl::StatusOr<UpstreamModel> AskOne(const UpstreamTarget& target) {
  const UpstreamUrl& url = target.options().url;
  const std::string where =
      absl::StrCat("upstream ", url.tls ? "https://" : "http://", url.authority, url.base_path, "/models");
  net::io_context io(1);
  UpstreamResolver resolver;
  UpstreamConnection connection(&io, &resolver, &target);
  ModelsReader reader;
  UpstreamResponseParser parser({}, &reader);
  std::string problem = "it sends no response";
  net::co_spawn(io, GetModels(&connection, &target, &problem, &parser), net::detached);
  io.run_for(absl::ToChronoNanoseconds(target.options().connect_timeout +
                                       std::min(target.options().silence_timeout, kLongestSilence)));
  connection.Close();
  io.restart();
  io.run();
  if (!problem.empty()) return absl::UnavailableError(absl::StrCat(where, ": ", problem));
  if (parser.status() != 200) {
    return absl::UnavailableError(absl::StrCat(where, ": it responds with HTTP ", parser.status()));
  }
  auto model = ParseFirstModel(reader.body);
  if (!model.ok()) {
    return absl::UnavailableError(absl::StrCat(where, ": ", model.status().message(), "; set --upstream_model"));
  }
  return model;
}

}  // namespace

absl::StatusOr<UpstreamModel> AskForModel(const std::vector<std::unique_ptr<UpstreamTarget>>& targets) {
  absl::StatusOr<UpstreamModel> model = absl::UnavailableError("no upstream");
  for (size_t i = 0; i < targets.size() && !model.ok(); ++i) model = AskOne(*targets[i]);
  return model;
}

}  // namespace runnel::inference
