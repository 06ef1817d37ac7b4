// A real ZooKeeper for tests.
#ifndef POSTKEEPER_TESTS_SUPPORT_ZOOKEEPER_SERVER_H_
#define POSTKEEPER_TESTS_SUPPORT_ZOOKEEPER_SERVER_H_

#include <chrono>
#include <string>
#include <vector>

#include "tests/support/zookeeper_process.h"

namespace postkeeper {

// A standalone ZooKeeper as a child process (zookeeper_process.h), on a loopback port, with its data in a temporary
// folder. The port stays the same, so that clients find the server again after a restart on the same data. The folder
// is removed at the end; the server's output stands in it, and is shown when the server does not come up.
//
// Threads: belongs to one.
class ZookeeperServer {
 public:
  struct Options {
    // The smallest session timeout that it grants is two ticks, the largest 200.
    std::chrono::milliseconds tick{100};
    // Larger requests drop the connection (jute.maxbuffer).
    int request_bytes_max = 1'048'575;
    // For the Java process, on top of the usual ones.
    std::vector<std::string> java_flags = {};
  };

  ZookeeperServer();
  explicit ZookeeperServer(Options options);
  ~ZookeeperServer();
  ZookeeperServer(const ZookeeperServer&) = delete;
  ZookeeperServer& operator=(const ZookeeperServer&) = delete;

  // Returns when it serves requests.
  void Start();
  // Ends it in an orderly way, or with SIGKILL.
  void Stop();
  void Kill();
  // It stands still: connections are made, nothing is answered.
  void Pause() { process_.Pause(); }
  void Resume() { process_.Resume(); }

  int port() const { return process_.port(); }
  std::string hosts() const { return process_.hosts(); }
  const std::string& folder() const { return folder_; }

 private:
  const Options options_;
  const std::string folder_;
  ZookeeperProcess process_;
};

}  // namespace postkeeper

#endif  // POSTKEEPER_TESTS_SUPPORT_ZOOKEEPER_SERVER_H_
