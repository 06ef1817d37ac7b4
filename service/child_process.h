// A program that runs as our child and never outlives us.
#ifndef POSTKEEPER_SERVICE_CHILD_PROCESS_H_
#define POSTKEEPER_SERVICE_CHILD_PROCESS_H_

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "zkstore/environment.h"

namespace postkeeper {

struct ChildOptions {
  std::vector<std::string> arguments;    // the first is the path of the program
  std::vector<std::string> environment;  // NAME=value; nothing else is passed on
  std::string working_directory;
  int output_fd = -1;  // becomes stdout and stderr
  int kept_fd = -1;    // stays open in the child, and so do the locks it holds; all others are closed
};

// A child, from its start until it has been waited for.
//
// It is killed with SIGKILL when the *thread* that started it ends, in whatever way: that is what the kernel offers
// (PR_SET_PDEATHSIG). So Start belongs on a thread that lives as long as the child is wanted; if the process dies, all
// its threads do. It leads a session of its own, so that Ctrl-C reaches only us, and begins with all signals at their
// defaults and none blocked.
//
// Not thread-safe; movable. Destroying it kills the child, if it still runs, and waits for it.
class ChildProcess {
 public:
  // How it ended, in words: "exit code 1", "signal 9 (Killed)".
  using End = std::string;

  // INTERNAL if the program cannot be started, with the reason.
  static absl::StatusOr<ChildProcess> Start(const ChildOptions& options);

  ChildProcess(ChildProcess&& other) noexcept;
  ChildProcess& operator=(ChildProcess&& other) noexcept;
  ~ChildProcess();

  pid_t pid() const { return pid_; }
  // Becomes readable when the child has ended. -1 when it has been waited for.
  int fd() const { return fd_; }

  void Signal(int number) const;
  // Waits until it ends, at most `timeout`. Once it returned something, the child is gone.
  std::optional<End> WaitFor(Duration timeout);

 private:
  ChildProcess(pid_t pid, int fd) : pid_(pid), fd_(fd) {}
  void Destroy();

  pid_t pid_ = -1;  // -1 when it has been waited for
  int fd_ = -1;
};

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_CHILD_PROCESS_H_
