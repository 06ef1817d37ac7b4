// What every command gets to work with.
#ifndef POSTKEEPER_CLI_COMMAND_H_
#define POSTKEEPER_CLI_COMMAND_H_

#include <ostream>
#include <string_view>

#include "cli/exit_code.h"
#include "cli/text.h"

namespace postkeeper::cli {

class ChildProcesses;
class Connection;
class Output;
class StopRequest;

// References to what outlives the command; nothing here is owned. A command runs on one thread unless it says so.
struct CommandContext {
  Connection& connection;
  Output& out;
  std::ostream& err;
  int stdin_fd;
  StopRequest& stop;
  ChildProcesses& children;
  bool is_quiet = false;

  // One line on stderr: what went wrong, with what, and what to type next. Answers `exit_code`.
  ExitCode Fail(ExitCode exit_code, std::string_view text) {
    err << "postkeeper: " << ForTerminal(text, false) << std::endl;
    return exit_code;
  }
  // One line on stderr for the person who watches; not with --quiet.
  void Note(std::string_view text) {
    if (!is_quiet) err << "postkeeper: " << ForTerminal(text, false) << std::endl;
  }
};

}  // namespace postkeeper::cli

#endif  // POSTKEEPER_CLI_COMMAND_H_
