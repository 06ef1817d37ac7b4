// Runs one command for one message.
#ifndef POSTKEEPER_CLI_CHILD_H_
#define POSTKEEPER_CLI_CHILD_H_

#include <sys/types.h>

#include <cstddef>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace postkeeper::cli {

// The commands that run at the moment. Thread-safe.
class ChildProcesses {
 public:
  // Kills every running command with all that it started (its process group). For an exit at once.
  void KillAll();

 private:
  friend class ChildProcess;
  std::mutex mu_;
  // Guarded by mu_. Taken out before the process is reaped, so that a number in here is never another process's.
  std::set<pid_t> running_;
};

struct ChildCommand {
  // For /bin/sh -c.
  std::string command;
  std::string_view input;
  // Put into the environment, which otherwise is ours without the variables of an outer --exec.
  std::vector<std::pair<std::string, std::string>> variables;
  // False: stdout is ours.
  bool captures_output = false;
  std::size_t output_bytes_max = 0;
};

struct ChildResult {
  // Empty: it ran and said 0. Else what to tell the queue: "exit code 3", "killed by signal 9 (Killed)", ...
  std::string failure;
  std::string output;

  bool is_success() const { return failure.empty(); }
};

// Runs the command to its end and feeds it `input`. Blocks as long as the command runs, not longer: what it leaves in
// the background is not waited for. Thread-safe.
//
// The command is the leader of a process group of its own, so that Ctrl-C in a terminal reaches postkeeper, which
// drains, and not the command, which is to finish. A command that does not read its input loses it and is not
// disturbed. Output beyond output_bytes_max is read, dropped and reported as failure, since half an output would be a
// lie.
ChildResult RunChild(const ChildCommand& command, ChildProcesses& children);

}  // namespace postkeeper::cli

#endif  // POSTKEEPER_CLI_CHILD_H_
