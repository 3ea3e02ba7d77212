// The limits of the gRPC port, tested by a client that writes HTTP/2 byte by byte.
#include "services/inference/rpc/grpc_listener.h"

#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "runnel/v1/inference.grpc.pb.h"
#include "services/base/metrics.h"
#include "tests/testing/raw_connection.h"
#include "tests/testing/wait.h"

namespace runnel::inference {
namespace {

using testing::WaitUntil;

struct Frame {
  uint8_t type = 0;
  uint8_t flags = 0;
  std::string payload;
};

constexpr uint8_t kSettings = 4;
constexpr uint8_t kPing = 6;
constexpr uint8_t kAck = 1;

class Http2Client : public testing::RawConnection {
 public:
  using RawConnection::RawConnection;

  // The preface and an empty SETTINGS.
  void SendPreface() { Send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + std::string("\0\0\0\4\0\0\0\0\0", 9)); }

  // Empty once the server has closed.
  std::optional<Frame> ReadFrame() {
    const std::string head = Read(9);
    if (head.size() < 9) return std::nullopt;
    const auto byte = [&](size_t i) { return static_cast<uint8_t>(head[i]); };
    const size_t size = size_t{byte(0)} << 16 | size_t{byte(1)} << 8 | byte(2);
    return Frame{byte(3), byte(4), Read(size)};
  }

  // True if a PING is acknowledged: the connection works.
  bool Answers() {
    Send(std::string("\0\0\10\6\0\0\0\0\0", 9) + "12345678");
    while (const auto frame = ReadFrame()) {
      if (frame->type == kPing && (frame->flags & kAck) != 0) return frame->payload == "12345678";
    }
    return false;
  }

  // The settings that the server announces.
  std::map<int, uint32_t> Settings() {
    while (const auto frame = ReadFrame()) {
      if (frame->type != kSettings || (frame->flags & kAck) != 0) continue;
      std::map<int, uint32_t> settings;
      for (size_t i = 0; i + 6 <= frame->payload.size(); i += 6) {
        const auto byte = [&](size_t j) { return uint32_t{static_cast<uint8_t>(frame->payload[i + j])}; };
        settings[static_cast<int>(byte(0) << 8 | byte(1))] = byte(2) << 24 | byte(3) << 16 | byte(4) << 8 | byte(5);
      }
      return settings;
    }
    return {};
  }
};

class GrpcListenerTest : public ::testing::Test {
 protected:
  std::unique_ptr<GrpcListener> Listen(const GrpcLimits& limits, const std::string& address = "127.0.0.1:0") {
    auto listener =
        GrpcListener::Create({.address = address, .reflection = false, .limits = limits}, &service_, &metrics_);
    EXPECT_TRUE(listener.ok()) << listener.status();
    return listener.ok() ? std::move(*listener) : nullptr;
  }
  static bool WaitForConnections(const GrpcListener& listener, size_t count) {
    return WaitUntil([&] { return listener.connections() == count; });
  }

  base::Metrics metrics_;
  v1::InferenceService::CallbackService service_;  // responds UNIMPLEMENTED to every call
};

TEST_F(GrpcListenerTest, AnnouncesItsLimitsInSettings) {
  constexpr int kMaxConcurrentStreams = 3;
  constexpr int kMaxHeaderListSize = 6;
  const auto listener = Listen({.max_streams = 37});
  Http2Client client(listener->port());
  client.SendPreface();
  const auto settings = client.Settings();
  ASSERT_TRUE(settings.contains(kMaxConcurrentStreams));
  EXPECT_EQ(settings.at(kMaxConcurrentStreams), 37u);
  ASSERT_TRUE(settings.contains(kMaxHeaderListSize));
  EXPECT_EQ(settings.at(kMaxHeaderListSize), 8192u);
}

TEST_F(GrpcListenerTest, ServesCalls) {
  const auto listener = Listen({}, ":0");
  const auto channel =
      grpc::CreateChannel("127.0.0.1:" + std::to_string(listener->port()), grpc::InsecureChannelCredentials());
  const auto stub = v1::InferenceService::NewStub(channel);
  grpc::ClientContext context;
  v1::ListModelsResponse response;
  EXPECT_EQ(stub->ListModels(&context, {}, &response).error_code(), grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_EQ(listener->connections(), 1u);
}

TEST_F(GrpcListenerTest, ConnectionsAboveTheLimitAreClosedAndTheOthersStayOpen) {
  const auto listener = Listen({.max_connections = 2});
  Http2Client first(listener->port());
  auto second = std::make_unique<Http2Client>(listener->port());
  first.SendPreface();
  second->SendPreface();
  ASSERT_TRUE(WaitForConnections(*listener, 2));
  for (int i = 0; i < 20; ++i) {
    Http2Client refused(listener->port());
    refused.SendPreface();
    EXPECT_TRUE(refused.WaitForClose());
  }
  EXPECT_THAT(metrics_.Expose(), ::testing::HasSubstr("runnel_grpc_connections_refused_total 20"));
  EXPECT_TRUE(first.Answers());
  EXPECT_TRUE(second->Answers());

  // A connection that ends makes room.
  second = nullptr;
  ASSERT_TRUE(WaitForConnections(*listener, 1));
  Http2Client third(listener->port());
  third.SendPreface();
  EXPECT_TRUE(third.Answers());
  EXPECT_TRUE(first.Answers());
  EXPECT_THAT(metrics_.Expose(), ::testing::HasSubstr("runnel_grpc_connections 2"));
}

TEST_F(GrpcListenerTest, AConnectionThatGrpcEndsIsClosedAndNotCounted) {
  const auto listener = Listen({});
  Http2Client client(listener->port());
  client.Send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  // The duplicate of the descriptor must not keep it open.
  EXPECT_TRUE(client.WaitForClose());
  EXPECT_TRUE(WaitForConnections(*listener, 0));
}

TEST_F(GrpcListenerTest, ASilentConnectionIsClosed) {
  const auto listener = Listen({.handshake_timeout = absl::Milliseconds(200)});
  Http2Client silent(listener->port());
  Http2Client half(listener->port());
  half.Send("PRI * HTT");
  EXPECT_TRUE(silent.WaitForClose());
  EXPECT_TRUE(half.WaitForClose());
  EXPECT_TRUE(WaitForConnections(*listener, 0));
}

TEST_F(GrpcListenerTest, AConnectionWithoutAStreamIsClosedEventually) {
  const auto listener = Listen({.idle_timeout = absl::Milliseconds(200)});
  Http2Client idle(listener->port());
  idle.SendPreface();
  EXPECT_FALSE(idle.Settings().empty());
  EXPECT_TRUE(idle.WaitForClose());
  EXPECT_TRUE(WaitForConnections(*listener, 0));
}

TEST_F(GrpcListenerTest, ClosedConnectionsLeaveNothing) {
  const auto listener = Listen({.max_connections = 8});
  for (int i = 0; i < 200; ++i) {
    Http2Client client(listener->port());
    if (i % 2 == 0) client.SendPreface();
    if (i % 4 == 0) client.Settings();
  }
  EXPECT_TRUE(WaitForConnections(*listener, 0));
}

TEST_F(GrpcListenerTest, AcceptsNoMoreOnceStopped) {
  auto listener = Listen({});
  const int port = listener->port();
  Http2Client open(port);
  open.SendPreface();
  EXPECT_TRUE(open.Answers());
  listener->StopAccepting();
  EXPECT_TRUE(open.Answers());
  // Another process can take the port.
  const auto next = Listen({}, "127.0.0.1:" + std::to_string(port));
  ASSERT_NE(next, nullptr);
  listener = nullptr;
  EXPECT_TRUE(open.WaitForClose());
}

// The reply of reflection to a request for the file that declares `symbol`, as grpcurl sends it: a serialised
// ServerReflectionResponse, whose generated code the distribution does not have.
std::string Describe(int port, const std::string& symbol) {
  constexpr char kFileContainingSymbol = 4 << 3 | 2;
  const auto channel = grpc::CreateChannel("127.0.0.1:" + std::to_string(port), grpc::InsecureChannelCredentials());
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
  grpc::CompletionQueue queue;
  void* tag = nullptr;
  bool ok = false;
  const auto call =
      stub.PrepareCall(&context, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", &queue);
  call->StartCall(nullptr);
  queue.Next(&tag, &ok);
  const grpc::Slice request(std::string{kFileContainingSymbol, static_cast<char>(symbol.size())} + symbol);
  call->Write(grpc::ByteBuffer(&request, 1), nullptr);
  queue.Next(&tag, &ok);
  grpc::ByteBuffer response;
  call->Read(&response, nullptr);
  queue.Next(&tag, &ok);
  std::vector<grpc::Slice> slices;
  std::string bytes;
  if (ok && response.Dump(&slices).ok()) {
    for (const auto& slice : slices) bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  context.TryCancel();
  grpc::Status status;
  call->Finish(&status, nullptr);
  queue.Next(&tag, &ok);
  return bytes;
}

TEST_F(GrpcListenerTest, ReflectionDescribesTheHealthServiceAsWell) {
  const auto listener =
      GrpcListener::Create({.address = "127.0.0.1:0", .reflection = true, .limits = {}}, &service_, &metrics_);
  ASSERT_TRUE(listener.ok()) << listener.status();
  EXPECT_THAT(Describe((*listener)->port(), "grpc.health.v1.Health"), ::testing::HasSubstr("HealthCheckRequest"));
  EXPECT_THAT(Describe((*listener)->port(), "runnel.v1.InferenceService"), ::testing::HasSubstr("ListModelsRequest"));
}

TEST_F(GrpcListenerTest, SaysThatThePortIsTaken) {
  const auto first = Listen({});
  const auto second = GrpcListener::Create({.address = "127.0.0.1:" + std::to_string(first->port()), .limits = {}},
                                           &service_, &metrics_);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace runnel::inference
