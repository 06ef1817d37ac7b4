#include "cli/connection.h"

#include <absl/strings/numbers.h>
#include <grpcpp/grpcpp.h>

#include <utility>

#include "cli/build_values.h"
#include "cli/failure.h"

namespace postkeeper::cli {
namespace {

std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetServiceConfigJSON(kServiceConfig);
  arguments.SetUserAgentPrefix(Cat("postkeeper-cli/", kVersion));
  // Notices within 20 s that the other side has vanished without a word. The service allows a ping each 10 s.
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 10'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  // A server that restarts is found again soon.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 200);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 5'000);  // what a handshake may take
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2'000);
  // gRPC connects again only after it has resolved the name again, by default at most every 30 s.
  arguments.SetInt(GRPC_ARG_DNS_MIN_TIME_BETWEEN_RESOLUTIONS_MS, 200);
  // postkeeperd is a neighbour; a web proxy in the environment is not the way to it.
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

std::chrono::system_clock::time_point After(Duration duration) {
  return std::chrono::system_clock::now() + std::chrono::duration_cast<std::chrono::system_clock::duration>(duration);
}

}  // namespace

Connection::Connection(ConnectionOptions options)
    : options_(std::move(options)), channel_(MakeChannel(options_.address)) {}

Connection::~Connection() = default;

bool Connection::WaitUntilConnected(Duration timeout) { return channel_->WaitForConnected(After(timeout)); }

grpc::Status Connection::Call(const std::function<grpc::Status(grpc::ClientContext*)>& call, Duration extra) {
  if (!WaitUntilConnected(std::min(options_.connect_timeout, options_.call_timeout))) {
    return grpc::Status(grpc::StatusCode::UNAVAILABLE, "");
  }
  grpc::ClientContext context;
  context.set_deadline(After(options_.call_timeout + extra));
  return call(&context);
}

Failure Connection::Unreachable() const {
  return {ExitCode::kUnreachable,
          Cat("cannot reach postkeeperd at ", options_.address, ". Is it running? Start it: postkeeperd")};
}

Failure Connection::Explain(const grpc::Status& status, std::string_view what) {
  if (status.ok()) return {};
  const ErrorInfo info = GetErrorInfo(status);
  const bool is_way_lost = info.reason.empty() && (status.error_code() == grpc::StatusCode::UNAVAILABLE ||
                                                   status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED);
  if (is_way_lost && channel_->GetState(false) != GRPC_CHANNEL_READY) {
    Failure failure = Unreachable();
    failure.text = Cat(what, ": ", failure.text);
    return failure;
  }
  if (info.reason.empty() && status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED) {
    return {ExitCode::kFailed,
            Cat(what, ": no answer from ", options_.address, " within ", FormatDuration(options_.call_timeout),
                ", so it may or may not have been done. Look: postkeeper health")};
  }
  if (info.reason.empty() && status.error_code() == grpc::StatusCode::UNIMPLEMENTED && status.error_message().empty()) {
    return {ExitCode::kFailed, Cat(what, ": what answers at ", options_.address,
                                   " does not know this call. Is it a postkeeperd of this version? Look: "
                                   "postkeeper server")};
  }
  std::string text = Cat(what, ": ", status.error_message().empty() ? "failed" : status.error_message());
  text +=
      Cat(" (", info.reason.empty() ? Cat("gRPC status ", static_cast<int>(status.error_code())) : info.reason, ")");
  const auto oldest = info.metadata.find("oldest_position");
  if (info.reason == "POSITION_TRIMMED") {
    text += Cat(". Start at the oldest message that is left: --from earliest");
    if (oldest != info.metadata.end()) text += Cat(" (position ", oldest->second, ")");
  }
  return {ExitCodeOf(status), std::move(text)};
}

std::string CheckAddress(const std::string& address) {
  if (address.starts_with("unix:") || address.find("://") != std::string::npos) return "";
  const std::size_t colon = address.rfind(':');
  int port = 0;
  const bool is_right = colon != std::string::npos && colon > 0 && absl::SimpleAtoi(address.substr(colon + 1), &port) &&
                        port > 0 && port < 65536 &&
                        (address.find(':') == colon || (address[0] == '[' && address[colon - 1] == ']'));
  if (is_right) return "";
  return Cat("'", ForTerminal(address, false), "' is not host:port. Right would be 127.0.0.1:7411");
}

}  // namespace postkeeper::cli
