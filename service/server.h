// The gRPC server: the port, and who answers on it.
#ifndef POSTKEEPER_SERVICE_SERVER_H_
#define POSTKEEPER_SERVICE_SERVER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "service/cluster_service.h"
#include "service/desk.h"
#include "service/health_service.h"

namespace postkeeper {

// Serves MessageService, AdminService, ClusterService, health and reflection from Start on. What is not gRPC on the
// port is dropped by gRPC and harms nobody.
//
// Stopping is in two steps, so that the store can be closed in between: Drain refuses what is new and waits for what is
// open, Shutdown closes the port.
//
// Not thread-safe.
class Server {
 public:
  struct Options {
    std::string listen;  // host:port; port 0 = a free one
    ServerInfo info;
  };

  // The error is one line that says what to do next. The desk must outlive the server.
  static absl::StatusOr<std::unique_ptr<Server>> Start(Desk& desk, Options options);
  ~Server();

  // host:port, with the port that was taken.
  const std::string& address() const { return address_; }
  Health& health() { return health_; }

  // New calls are answered with REPLICA_DRAINING, streams are asked to leave; returns when none is left, or when they
  // had to be ended after `grace`.
  void Drain(Duration grace);
  // Cancels what is left after `timeout`. Drain first.
  void Shutdown(Duration timeout);

 private:
  class Impl;
  explicit Server(Desk& desk);

  Desk& desk_;
  Health health_;
  std::string address_;
  std::unique_ptr<Impl> impl_;
};

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_SERVER_H_
