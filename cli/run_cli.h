// Runs the program inside a test, from argv to exit code.
#ifndef POSTKEEPER_CLI_RUN_CLI_H_
#define POSTKEEPER_CLI_RUN_CLI_H_

#include <unistd.h>

#include <chrono>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "cli/child.h"
#include "cli/command.h"
#include "cli/connection.h"
#include "cli/flags.h"
#include "cli/output.h"
#include "cli/stop.h"

namespace postkeeper::cli {

// One run on a thread of its own. What it printed may be read after Join.
class CliRun {
 public:
  CliRun(const std::string& address, std::vector<std::string> arguments, const std::string& input = "") {
    arguments.insert(arguments.begin(), {"postkeeper", "--address", address});
    if (pipe(pipe_) != 0) std::abort();
    thread_ = std::thread([this, arguments = std::move(arguments)] { Run(arguments); });
    // Bounded by the pipe's 64 KiB: larger inputs go through files.
    if (write(pipe_[1], input.data(), input.size()) != static_cast<ssize_t>(input.size())) std::abort();
    close(pipe_[1]);
  }
  ~CliRun() {
    stop_.Request();
    Join();
    close(pipe_[0]);
  }
  CliRun(const CliRun&) = delete;
  CliRun& operator=(const CliRun&) = delete;

  // As SIGTERM does.
  void RequestStop() { stop_.Request(); }
  CliRun& Join() {
    if (thread_.joinable()) thread_.join();
    return *this;
  }

  int exit_code() const { return exit_code_; }
  std::string out() const { return out_.str(); }
  std::string err() const { return err_.str(); }

 private:
  void Run(const std::vector<std::string>& arguments) {
    std::vector<const char*> argv;
    for (const std::string& argument : arguments) argv.push_back(argument.c_str());
    ParsedCommandLine parsed = ParseCommandLine(static_cast<int>(argv.size()), argv.data());
    exit_code_ = static_cast<int>(parsed.exit_code);
    if (!parsed.run) {
      (exit_code_ == 0 ? out_ : err_) << parsed.text;
      return;
    }
    // A test on one machine need not wait long to find nobody there.
    parsed.connection.connect_timeout = std::chrono::milliseconds(500);
    Connection connection(parsed.connection);
    Output out(out_, parsed.format, false);
    CommandContext context{connection, out, err_, pipe_[0], stop_, children_, parsed.is_quiet};
    exit_code_ = static_cast<int>(parsed.run(context));
  }

  StopRequest stop_;
  ChildProcesses children_;
  std::ostringstream out_;
  std::ostringstream err_;
  int pipe_[2] = {-1, -1};
  int exit_code_ = -1;
  std::thread thread_;
};

}  // namespace postkeeper::cli

#endif  // POSTKEEPER_CLI_RUN_CLI_H_
