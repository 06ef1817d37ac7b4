// The ceiling of a call: a server that answers Enqueue at once and does nothing else.
#ifndef POSTKEEPER_BENCH_ECHO_SERVER_H_
#define POSTKEEPER_BENCH_ECHO_SERVER_H_

#include <sys/types.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace postkeeper::bench {

// The hidden flag with which this program becomes the server.
inline constexpr char kEchoServerFlag[] = "--serve-echo";

// Serves on a free loopback port, which it prints on stdout; returns when stdin ends, so it never outlives the one who
// started it. It serves Enqueue as postkeeperd does (raw bytes, callback API); the answer has one message id of the
// usual length.
int RunEchoServer();

// This program again, as the server. The destructor ends it.
class EchoProcess {
 public:
  static absl::StatusOr<std::unique_ptr<EchoProcess>> Start();
  ~EchoProcess();
  EchoProcess(const EchoProcess&) = delete;
  EchoProcess& operator=(const EchoProcess&) = delete;

  const std::string& address() const { return address_; }
  pid_t pid() const { return pid_; }

 private:
  EchoProcess(pid_t pid, int stdin_fd) : pid_(pid), stdin_fd_(stdin_fd) {}

  const pid_t pid_;
  const int stdin_fd_;
  std::string address_;
};

}  // namespace postkeeper::bench

#endif  // POSTKEEPER_BENCH_ECHO_SERVER_H_
