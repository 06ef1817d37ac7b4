// The way to the service.
#ifndef POSTKEEPER_CLI_CONNECTION_H_
#define POSTKEEPER_CLI_CONNECTION_H_

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "cli/exit_code.h"
#include "cli/text.h"

namespace grpc {
class Channel;
class ClientContext;
class Status;
}  // namespace grpc

namespace postkeeper::cli {

struct ConnectionOptions {
  std::string address = "127.0.0.1:7411";
  // How long one call may take. At most 30 s, which is what the service config allows.
  Duration call_timeout = std::chrono::seconds(30);
  // How long to try to reach the server before the first call. Its calls themselves would wait for it much longer.
  Duration connect_timeout = std::chrono::milliseconds(2500);
};

// A failed call, said for people. Empty text: none.
struct Failure {
  ExitCode exit_code = ExitCode::kDone;
  std::string text;
};

// One gRPC channel with the service's own service config (retries of UNAVAILABLE, deadlines, waiting for the server).
// Thread-safe. The channel is made at the first use and lives as long as this object.
class Connection {
 public:
  explicit Connection(ConnectionOptions options);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }
  const ConnectionOptions& options() const { return options_; }

  // Waits for the server; false if it does not answer in time. Costs nothing when connected.
  bool WaitUntilConnected(Duration timeout);
  // One of the calls: fails fast if nobody answers there, then gives the call its deadline (`extra` beyond the usual
  // one) and runs it.
  grpc::Status Call(const std::function<grpc::Status(grpc::ClientContext*)>& call, Duration extra = Duration::zero());

  // What a failed call means. `what` begins the sentence, e.g. "enqueue into orders".
  Failure Explain(const grpc::Status& status, std::string_view what);
  Failure Unreachable() const;

 private:
  const ConnectionOptions options_;
  const std::shared_ptr<grpc::Channel> channel_;
};

// "", or what is wrong with an address.
std::string CheckAddress(const std::string& address);

}  // namespace postkeeper::cli

#endif  // POSTKEEPER_CLI_CONNECTION_H_
