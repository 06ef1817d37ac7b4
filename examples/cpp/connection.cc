#include "connection.h"

#include <absl/status/status.h>

#include <chrono>
#include <cstdlib>
#include <iostream>

#include "service_config.h"

namespace {

constexpr char kDefaultAddress[] = "127.0.0.1:7411";
constexpr std::chrono::seconds kConnectTimeout{10};

}  // namespace

std::shared_ptr<grpc::Channel> Connect(const std::string& program) {
  const char* given = std::getenv("POSTKEEPER_ADDRESS");
  const std::string address = given != nullptr && *given != '\0' ? given : kDefaultAddress;
  grpc::ChannelArguments arguments;
  arguments.SetServiceConfigJSON(kServiceConfig);
  // postkeeperd allows a ping every 10 s, also without calls.
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 20'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  // A server that restarts is found again soon.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 200);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2'000);
  // gRPC connects again only after it has resolved the name again, by default at most every 30 s.
  arguments.SetInt(GRPC_ARG_DNS_MIN_TIME_BETWEEN_RESOLUTIONS_MS, 200);
  // postkeeperd is a neighbour; a web proxy in the environment is not the way to it.
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  auto channel = grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
  if (channel->WaitForConnected(std::chrono::system_clock::now() + kConnectTimeout)) return channel;
  std::cerr << program << ": cannot reach postkeeperd at " << address << ". Is it running? Start it: postkeeperd\n";
  return nullptr;
}

bool IsWorthRepeating(const grpc::Status& status, const grpc::ClientContext& context) {
  switch (status.error_code()) {
    case grpc::StatusCode::UNAVAILABLE:
    case grpc::StatusCode::RESOURCE_EXHAUSTED:
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return true;
    case grpc::StatusCode::CANCELLED:
    case grpc::StatusCode::INTERNAL:
    case grpc::StatusCode::UNKNOWN:
      // What gRPC itself says of a broken connection or a server that ends. The service gives details with what it
      // says.
      return !context.GetServerTrailingMetadata().contains("grpc-status-details-bin");
    default:
      return false;
  }
}

std::string Explain(const grpc::Status& status) {
  // gRPC's codes are Abseil's.
  return absl::StatusCodeToString(static_cast<absl::StatusCode>(status.error_code())) + ": " + status.error_message();
}
