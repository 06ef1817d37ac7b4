// A real ZooKeeper of several servers for tests.
#ifndef POSTKEEPER_TESTS_SUPPORT_ZOOKEEPER_ENSEMBLE_H_
#define POSTKEEPER_TESTS_SUPPORT_ZOOKEEPER_ENSEMBLE_H_

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/zookeeper_process.h"

namespace postkeeper {

// Voters and observers of one ensemble, each a child process (zookeeper_process.h) on loopback ports of its own that
// stay the same, with its data in one temporary folder, which is removed at the end.
//
// A server that is paused stays a member for 100 ticks: what is sent to it meanwhile is served when it is resumed.
//
// Threads: belongs to one.
class ZookeeperEnsemble {
 public:
  struct Options {
    int voters = 3;
    int observers = 0;
    std::chrono::milliseconds tick{100};
    // A server writes a snapshot after about so many transactions.
    int snapshot_every = 100'000;
  };

  explicit ZookeeperEnsemble(Options options);
  ~ZookeeperEnsemble();
  ZookeeperEnsemble(const ZookeeperEnsemble&) = delete;
  ZookeeperEnsemble& operator=(const ZookeeperEnsemble&) = delete;

  // Starts all that do not run, and returns when all serve.
  void Start();
  // The same without waiting.
  void Launch();
  // Waits until one of those that run leads, and returns it.
  int AwaitLeader();

  // The servers: first the voters, then the observers.
  int size() const { return static_cast<int>(servers_.size()); }
  ZookeeperProcess& server(int index) { return *servers_[static_cast<std::size_t>(index)]; }
  // The servers that are in this mode at this moment.
  std::vector<int> InMode(const std::string& mode);
  // Of all servers.
  std::string hosts() const;

 private:
  std::string Configuration(int index) const;

  const Options options_;
  const std::string folder_;
  std::string members_;  // the lines of the configuration that all have in common
  std::vector<std::unique_ptr<ZookeeperProcess>> servers_;
};

}  // namespace postkeeper

#endif  // POSTKEEPER_TESTS_SUPPORT_ZOOKEEPER_ENSEMBLE_H_
