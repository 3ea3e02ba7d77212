// WsSession: handling of each client message.
#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "bridges/server/inference_client.h"
#include "bridges/websocket/close_codes.h"
#include "bridges/websocket/ws_error.h"
#include "bridges/websocket/ws_session.h"
#include "bridges/websocket/ws_stream.h"
#include "services/base/clock.h"
#include "services/base/grpc_status.h"

namespace runnel::websocket {
namespace {

// Errors in a row after which a client is disconnected.
constexpr int kMaxStrikes = 3;

}  // namespace

void WsSession::OnClientMessage(std::string_view bytes) {
  last_message_ = base::Clock::System().Monotonic();
  if (!authenticated_) {
    v1::WebSocketAuth auth;
    if (ParseAuth(format(), bytes, &auth).ok()) return OnAuth(auth);
    return CloseWith(kCloseUnauthenticated, "expected auth as the first message");
  }
  v1::WebSocketClientMessage message;
  std::string req;
  const absl::Status status = ParseClientMessage(format(), bytes, &message, &req);
  if (!status.ok()) return OnBadMessage(req, status);
  bad_messages_ = 0;
  switch (message.message_case()) {
    case v1::WebSocketClientMessage::kAuth:
      return OnAuth(message.auth());
    case v1::WebSocketClientMessage::kGenerate:
      return OnGenerate(std::move(*message.mutable_generate()));
    case v1::WebSocketClientMessage::kResume:
      return OnResume(message.resume());
    case v1::WebSocketClientMessage::kCancel:
      return OnCancel(message.cancel().generation_id());
    case v1::WebSocketClientMessage::kDetach:
      return OnDetach(message.detach().generation_id());
    case v1::WebSocketClientMessage::kPing: {
      v1::WebSocketServerMessage reply;
      reply.mutable_pong()->set_t(message.ping().t());
      return WriteMessage(reply);
    }
    case v1::WebSocketClientMessage::MESSAGE_NOT_SET:
      return;  // ParseClientMessage rejects it.
  }
}

void WsSession::OnBadMessage(const std::string& req, const absl::Status& status) {
  WriteError(req, "", status);
  if (!IsBadFrame(status)) {
    bad_messages_ = 0;
  } else if (++bad_messages_ >= kMaxStrikes) {
    CloseWith(kClosePolicy, "too many invalid messages");
  }
}

void WsSession::OnAuth(const v1::WebSocketAuth& auth) {
  // A client may send `auth` to a bridge that needs no key, and may send it again.
  if (context_.policy->needs_key()) {
    absl::StatusOr<std::string> principal = context_.policy->AuthorizeKey(auth.token());
    if (!principal.ok()) return CloseWith(kCloseUnauthenticated, "invalid API key");
    principal_ = *std::move(principal);
  }
  authenticated_ = true;
  LimitMessages();
}

void WsSession::OnGenerate(v1::WebSocketGenerate generate) {
  if (!MayOpenStream(generate.req(), nullptr)) return;
  streams_.push_back(std::make_unique<WsStream>(this, std::move(generate)));
}

void WsSession::OnResume(const v1::WebSocketResume& resume) {
  // A second stream of the same generation replaces the first: the client has found a gap and names the seq to
  // continue after.
  WsStream* const old = FindStream(resume.generation_id());
  if (!MayOpenStream(resume.req(), old)) return;
  if (old != nullptr) {
    old->Retire();
    RemoveStream(old);
  }
  streams_.push_back(std::make_unique<WsStream>(this, resume));
}

void WsSession::OnDetach(const std::string& id) {
  WsStream* const stream = FindStream(id);
  if (stream == nullptr) return;
  stream->FailRequest("DETACHED", "the stream was detached before its first reply");
  RemoveStream(stream);
}

void WsSession::OnCancel(const std::string& id) {
  if (cancels_ >= context_.options.max_streams_per_connection) {
    return WriteError("", id,
                      base::MakeError(absl::StatusCode::kResourceExhausted, "RATE_LIMITED",
                                      "too many cancels in progress; try again later", absl::Seconds(1)));
  }
  cancels_++;
  thread_->client->CancelGeneration(
      thread_, id, principal_,
      [weak = weak_from_this(), id](const absl::StatusOr<v1::CancelGenerationResponse>& response) {
        const std::shared_ptr<WsSession> self = weak.lock();
        if (self == nullptr) return;
        self->cancels_--;
        self->Guard([&] {
          if (!response.ok()) self->WriteError("", id, response.status());
          self->Flush();
        });
      });
}

bool WsSession::MayOpenStream(const std::string& req, const WsStream* replaced) {
  if (goaway_sent_) {
    WriteError(req, "",
               base::MakeError(absl::StatusCode::kUnavailable, "DRAINING", "this bridge is shutting down; reconnect",
                               absl::Milliseconds(500)));
    return false;
  }
  const size_t others = streams_.size() - (replaced == nullptr ? 0 : 1);
  if (others < context_.options.max_streams_per_connection) {
    refused_streams_ = 0;
    return true;
  }
  WriteError(req, "",
             base::MakeError(absl::StatusCode::kResourceExhausted, "TOO_MANY_STREAMS",
                             absl::StrCat("this connection already has ", context_.options.max_streams_per_connection,
                                          " streams; detach one, or use another connection")));
  if (++refused_streams_ >= kMaxStrikes) CloseWith(kCloseTooManyStreams, "too many attempts to open a stream");
  return false;
}

WsStream* WsSession::FindStream(std::string_view id) {
  const auto found = std::find_if(streams_.begin(), streams_.end(),
                                  [id](const auto& stream) { return stream->generation_id() == id; });
  return found == streams_.end() ? nullptr : found->get();
}

}  // namespace runnel::websocket
