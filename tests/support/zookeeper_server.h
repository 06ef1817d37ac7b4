// A real ZooKeeper for tests.
#ifndef POSTKEEPER_TESTS_SUPPORT_ZOOKEEPER_SERVER_H_
#define POSTKEEPER_TESTS_SUPPORT_ZOOKEEPER_SERVER_H_

#include <sys/types.h>

#include <chrono>
#include <string>

namespace postkeeper {

// A standalone ZooKeeper as a child process, on a loopback port, with its data in a temporary folder.
//
// How it works: the port is chosen at the first Start and kept, so that clients find the server again after a restart
// on the same data. The child carries a death signal: it ends with the thread that called Start, however that ends.
// What cannot work (no java, no ZooKeeper) fails the process with a text that says what to install: a test without its
// server proves nothing. The folder is removed at the end; the server's output stands in it, and is shown when the
// server does not come up.
//
// Threads: belongs to one.
class ZookeeperServer {
 public:
  struct Options {
    // The smallest session timeout that it grants is two ticks, the largest 200.
    std::chrono::milliseconds tick{100};
    // Larger requests drop the connection (jute.maxbuffer).
    int request_bytes_max = 1'048'575;
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
  void Pause();
  void Resume();

  int port() const { return port_; }
  std::string hosts() const { return "127.0.0.1:" + std::to_string(port_); }
  const std::string& folder() const { return folder_; }

 private:
  void WriteConfiguration();
  void End(int signal);
  // True if the server says that it serves; false as long as it does not.
  bool Serves() const;

  const Options options_;
  std::string folder_;
  int port_ = 0;
  pid_t pid_ = 0;  // 0: not running
};

}  // namespace postkeeper

#endif  // POSTKEEPER_TESTS_SUPPORT_ZOOKEEPER_SERVER_H_
