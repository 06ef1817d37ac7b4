#include "service/server.h"

#include <grpc/support/log.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/impl/service_type.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <utility>

#include "metrics/listen_address.h"
#include "service/admin_service.h"
#include "service/broker.h"
#include "service/logging.h"
#include "service/message_service.h"
#include "service/scaler_service.h"
#include "zkstore/text.h"

namespace postkeeper {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

// API.md: «The server pings after 30 s of silence and gives up after 10 s; clients may ping every 10 s.»
constexpr milliseconds kPingAfter = seconds(30);
constexpr milliseconds kPingTimeout = seconds(10);
constexpr milliseconds kClientPingsEvery = seconds(9);  // clocks and networks are not exact
// gRPC asks a connection to move after this +- 10 %. Its streams are asked by the gate; what is still open after the
// grace, which is longer than the gate's longest, is cut off.
constexpr milliseconds kConnectionAge = minutes(30);
constexpr milliseconds kConnectionGrace = minutes(40);
// Above the largest request by far; what is larger is refused by gRPC itself.
constexpr int kReceiveBytesMax = 4 << 20;

constexpr milliseconds kDrainPoll(5);
// For streams that were told to end to send their status.
constexpr milliseconds kEndingTimeout(500);

int Milliseconds(milliseconds duration) { return static_cast<int>(duration.count()); }

// While the port is opened, what gRPC has to say is said better by WhyNot.
std::atomic<bool> is_grpc_heard = false;

void LogForGrpc(gpr_log_func_args* args) {
  if (args->severity == GPR_LOG_SEVERITY_ERROR && is_grpc_heard) {
    LogWarning("gRPC reports an error", {{"error", args->message}});
  } else {
    LogDebug("gRPC", {{"text", args->message}});
  }
}

void SetArguments(grpc::ServerBuilder& builder) {
  builder.SetMaxReceiveMessageSize(kReceiveBytesMax);
  builder.SetMaxSendMessageSize(-1);  // our own limits hold
  // Two servers on one port would share its connections.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, Milliseconds(kPingAfter));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, Milliseconds(kPingTimeout));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, Milliseconds(kClientPingsEvery));
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_MS, Milliseconds(kConnectionAge));
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS, Milliseconds(kConnectionGrace));
}

// gRPC does not say why it could not listen.
absl::Status WhyNot(const std::string& listen) {
  ListenAddress address;
  if (absl::Status status = ParseListenAddress(listen, &address); status.ok()) {
    if (absl::Status reason = CheckCanListen(address, "--listen"); !reason.ok()) return reason;
  }
  return absl::UnavailableError(Cat("cannot listen on ", listen, ". Choose another: --listen 127.0.0.1:7500"));
}

}  // namespace

class Server::Impl {
 public:
  Impl(Desk& desk, Health& health, ServerInfo info)
      : message_(MakeMessageService(desk)),
        admin_(MakeAdminService(desk)),
        cluster_(MakeClusterService(desk, std::move(info))),
        health_(MakeHealthService(desk, health)),
        scaler_(MakeScalerService(desk)) {}

  // The port, or 0.
  int Listen(const std::string& address) {
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    grpc::ServerBuilder builder;
    SetArguments(builder);
    int port = 0;
    builder.AddListeningPort(address, grpc::InsecureServerCredentials(), &port);
    for (grpc::Service* service : {message_.get(), admin_.get(), cluster_.get(), health_.get(), scaler_.get()}) {
      builder.RegisterService(service);
    }
    server_ = builder.BuildAndStart();
    return server_ ? port : 0;
  }

  void Shutdown(Duration timeout) {
    if (!server_) return;
    server_->Shutdown(std::chrono::system_clock::now() + timeout);
    server_->Wait();
    server_.reset();
  }

 private:
  std::unique_ptr<grpc::Service> message_;
  std::unique_ptr<grpc::Service> admin_;
  std::unique_ptr<grpc::Service> cluster_;
  std::unique_ptr<grpc::Service> health_;
  std::unique_ptr<grpc::Service> scaler_;
  std::unique_ptr<grpc::Server> server_;
};

Server::Server(Desk& desk) : desk_(desk) {}

Server::~Server() { Shutdown(Duration::zero()); }

absl::StatusOr<std::unique_ptr<Server>> Server::Start(Desk& desk, Options options) {
  gpr_set_log_function(LogForGrpc);
  std::unique_ptr<Server> server(new Server(desk));
  server->impl_ = std::make_unique<Impl>(desk, server->health_, std::move(options.info));
  const int port = server->impl_->Listen(options.listen);
  if (port == 0) return WhyNot(options.listen);
  is_grpc_heard = true;
  server->address_ = Cat(options.listen.substr(0, options.listen.rfind(':')), ":", port);
  return server;
}

void Server::Drain(Duration grace) {
  const Instant deadline = desk_.environment.Now() + grace;
  desk_.gate.Drain(grace);
  if (Broker* broker = desk_.broker()) broker->Drain();  // ends the calls that wait
  health_.Close();
  while (!desk_.gate.IsEmpty() && desk_.environment.Now() < deadline) std::this_thread::sleep_for(kDrainPoll);
  desk_.gate.EndStreams();
  const Instant ended = desk_.environment.Now() + kEndingTimeout;
  while (!desk_.gate.IsEmpty() && desk_.environment.Now() < ended) std::this_thread::sleep_for(kDrainPoll);
}

void Server::Shutdown(Duration timeout) { impl_->Shutdown(timeout); }

}  // namespace postkeeper
