// postkeeper, the command line.
#include <unistd.h>

#include <cstdlib>
#include <iostream>
#include <memory>

#include "cli/child.h"
#include "cli/command.h"
#include "cli/connection.h"
#include "cli/flags.h"
#include "cli/output.h"
#include "cli/stop.h"

namespace {

using namespace postkeeper::cli;

// Before the libraries' initializers, which open files.
[[gnu::section(".preinit_array"), gnu::used]] void (*fill_closed_standard_streams)(int, char**,
                                                                                   char**) = FillClosedStandardStreams;

int Main(int argc, char** argv) {
  ParsedCommandLine parsed = ParseCommandLine(argc, argv);
  if (!parsed.run) {
    (parsed.exit_code == ExitCode::kDone ? std::cout : std::cerr) << parsed.text << std::flush;
    return static_cast<int>(std::cout.good() ? parsed.exit_code : ExitCode::kFailed);
  }
  StopRequest stop;
  ChildProcesses children;
  // Before gRPC starts its threads: the signals must be blocked in every one of them.
  std::unique_ptr<SignalWatcher> signals;
  if (parsed.drains_on_signals) {
    signals = std::make_unique<SignalWatcher>(
        stop, [&children] { children.KillAll(); }, STDOUT_FILENO);
  }
  Output out(std::cout, parsed.format, isatty(STDOUT_FILENO) == 1);
  Connection connection(parsed.connection);
  CommandContext context{connection, out, std::cerr, STDIN_FILENO, stop, children, parsed.is_quiet};
  const ExitCode exit_code = parsed.run(context);
  const bool has_lost_reader = signals != nullptr && signals->has_lost_reader();
  if ((has_lost_reader || !out.Flush()) && exit_code == ExitCode::kDone) {
    return static_cast<int>(context.Fail(ExitCode::kFailed, "cannot write to standard output"));
  }
  return static_cast<int>(exit_code);
}

}  // namespace

int main(int argc, char** argv) {
  std::ios::sync_with_stdio(false);
  // What gRPC has to say, postkeeper says in its own words. GRPC_VERBOSITY=debug still works.
  setenv("GRPC_VERBOSITY", "NONE", 0);
  IgnoreBrokenPipes();
  return Main(argc, argv);
}
