// A ZooKeeper of our own.
#ifndef POSTKEEPER_SERVICE_EMBEDDED_ZOOKEEPER_H_
#define POSTKEEPER_SERVICE_EMBEDDED_ZOOKEEPER_H_

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "zkstore/environment.h"

namespace postkeeper {

// Runs a real standalone ZooKeeper as a child of this process, on a loopback port, and keeps it running.
//
// Layout of Options::directory:
//   data/version-2/       snapshots and transaction logs, kept across restarts
//   lock                  locked by the running ZooKeeper itself; its text is that one's process id
//   zoo.cfg, logging.properties   written at each start
//   zookeeper.log.0, .1   what ZooKeeper logs, at most 1 MiB each
//   zookeeper.out         what Java itself has to say, of the last start
//
// How it works: one thread, which lives as long as this object, starts the child, waits for it to answer, and starts it
// again on the same port when it ends by itself, after a pause that grows from 0.5 s to 10 s; clients only see a broken
// connection. Every write is on the disk before ZooKeeper confirms it, so neither its death nor ours loses anything. A
// ZooKeeper that ends kRestartsMax times without having been up for kStableAfter in between is given up, and on_gone is
// called. A second thread removes files that are no longer needed (snapshot_purger.h).
//
// If this process dies, even by SIGKILL, the kernel kills the child (child_process.h). Killing takes a moment; until
// then the child holds `lock`, and a new one waits for that. So there are never two on the same data.
//
// Security: the port is open to all users of this machine, without a password, as ZooKeeper's is by default.
//
// Threads: Start and Stop on any thread, on_gone is called on this object's own.
class EmbeddedZooKeeper {
 public:
  static constexpr int kRestartsMax = 5;
  static constexpr Duration kStableAfter = std::chrono::minutes(1);
  static constexpr int kPortAttemptsMax = 5;

  struct Options {
    std::string directory;
    int port = 0;  // 0 = a free one
    std::int64_t heap_bytes = std::int64_t{1} << 30;
    // How many bytes of log ZooKeeper writes before a snapshot, at most (it varies between half of it and all of it).
    // Bounds the disk: at most some 5 times this and 4 snapshots, each as large as what is stored (the soak test
    // measured 2.1 GiB with 100 MiB stored). A start reads at most so much log. Less of it means more snapshots: with
    // 1 GiB stored, each half GiB of log already costs a GiB of snapshot.
    std::int64_t snapshot_log_bytes = std::int64_t{512} << 20;
    Duration purge_interval = std::chrono::seconds(1);
    Duration restart_pause_min = std::chrono::milliseconds(500);  // doubles up to 10 s
    // Until it answers. Loading 1 GiB takes some ten seconds.
    Duration start_timeout = std::chrono::minutes(2);
    std::string java;  // empty = $JAVA_HOME/bin/java, else the first in PATH
    std::string jars = "/usr/share/java";
    // It is gone and will not be started again. `why` is one line. Must not call this object.
    std::function<void(absl::Status why)> on_gone;
  };

  // Returns when ZooKeeper answers. FAILED_PRECONDITION: something of the user's must change (Java is missing, the port
  // is taken). UNAVAILABLE: it did not come up. Both are one line that says what to do.
  static absl::StatusOr<std::unique_ptr<EmbeddedZooKeeper>> Start(Options options);

  ~EmbeddedZooKeeper();  // stops it
  EmbeddedZooKeeper(const EmbeddedZooKeeper&) = delete;
  EmbeddedZooKeeper& operator=(const EmbeddedZooKeeper&) = delete;

  // Asks it to end, kills it after `patience`, and returns when it is gone. Further calls do nothing.
  void Stop(Duration patience = std::chrono::seconds(5));

  int port() const;
  std::string hosts() const;  // "127.0.0.1:PORT", what a client connects to
  pid_t pid() const;          // -1 while there is none
  int restarts() const;

 private:
  class Impl;
  explicit EmbeddedZooKeeper(std::unique_ptr<Impl> impl);
  const std::unique_ptr<Impl> impl_;
};

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_EMBEDDED_ZOOKEEPER_H_
