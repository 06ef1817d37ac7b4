// One ZooKeeper server as a child process. What tests use stands in zookeeper_server.h and zookeeper_ensemble.h.
#ifndef POSTKEEPER_TESTS_SUPPORT_ZOOKEEPER_PROCESS_H_
#define POSTKEEPER_TESTS_SUPPORT_ZOOKEEPER_PROCESS_H_

#include <sys/types.h>

#include <string>
#include <vector>

namespace postkeeper {

// A java process with a ZooKeeper in it. Its configuration is what the caller says, in the file zoo.cfg of `folder`;
// what it has to say is added to the file `output` there. It must serve at 127.0.0.1:`port` and answer "srvr".
//
// The child carries a death signal: it ends with the thread that launched it, however that ends. What cannot work (no
// java, no ZooKeeper) fails the process with a text that says what to install: a test without its server proves
// nothing.
//
// Threads: belongs to one.
class ZookeeperProcess {
 public:
  // The folder is there, and stays the caller's.
  ZookeeperProcess(std::string folder, int port);
  // Kills it.
  ~ZookeeperProcess();
  ZookeeperProcess(const ZookeeperProcess&) = delete;
  ZookeeperProcess& operator=(const ZookeeperProcess&) = delete;

  // Returns at once. `java_flags` come on top of those that every test wants. Nothing if it runs already.
  void Launch(const std::string& main_class, const std::string& configuration,
              std::vector<std::string> java_flags = {});
  // Returns when it serves requests; fails the process if it ends instead.
  void AwaitService();
  // Sends the signal and waits for its end.
  void End(int signal);
  // It stands still: connections are made, nothing is answered.
  void Pause();
  void Resume();

  bool is_running() const { return pid_ != 0; }
  int port() const { return port_; }
  std::string hosts() const { return "127.0.0.1:" + std::to_string(port_); }
  const std::string& folder() const { return folder_; }
  // What it tells of itself: "Mode: leader", "Outstanding: 0" and more, a line each. Empty as long as it does not
  // serve.
  std::string Report() const;
  // "standalone", "leader", "follower", "observer", or "" as long as it does not serve.
  std::string Mode() const;
  // What it has written so far.
  std::string Output() const;

 private:
  const std::string folder_;
  const int port_;
  pid_t pid_ = 0;  // 0: not running
};

// So many TCP ports of 127.0.0.1, all different, that nobody uses at this moment.
std::vector<int> FreePorts(int count);
// A new folder below the system's temporary one.
std::string MakeTemporaryFolder();

}  // namespace postkeeper

#endif  // POSTKEEPER_TESTS_SUPPORT_ZOOKEEPER_PROCESS_H_
