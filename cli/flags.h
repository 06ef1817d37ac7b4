// From argv to a command that is ready to run.
#ifndef POSTKEEPER_CLI_FLAGS_H_
#define POSTKEEPER_CLI_FLAGS_H_

#include <functional>
#include <string>

#include "cli/command.h"
#include "cli/connection.h"
#include "cli/exit_code.h"
#include "cli/output.h"

namespace postkeeper::cli {

struct ParsedCommandLine {
  // Null: nothing to run, print `text` and leave with `exit_code` (help on stdout, a usage error on stderr).
  std::function<ExitCode(CommandContext&)> run;
  ExitCode exit_code = ExitCode::kDone;
  std::string text;

  ConnectionOptions connection;
  OutputFormat format = OutputFormat::kHuman;
  bool is_quiet = false;
  // True: SIGINT and SIGTERM are requests that the command itself obeys.
  bool drains_on_signals = false;
};

// Values not given come from the environment (POSTKEEPER_ADDRESS), else they are the defaults.
ParsedCommandLine ParseCommandLine(int argc, const char* const* argv);

}  // namespace postkeeper::cli

#endif  // POSTKEEPER_CLI_FLAGS_H_
