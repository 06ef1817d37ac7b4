// Looking at the service: `postkeeper stats`, `health`, `server` and `cluster ls`; and at this program: `postkeeper
// version`.
#ifndef POSTKEEPER_CLI_SERVER_H_
#define POSTKEEPER_CLI_SERVER_H_

#include <string>

#include "cli/command.h"

namespace postkeeper::cli {

ExitCode ShowStats(const std::string& source, CommandContext& context);

// Asks grpc.health.v1 for `service`: "" for the whole server, "liveness" for the process alone. Done if it serves,
// failed if it does not, not found if it is unknown there.
ExitCode ShowHealth(const std::string& service, CommandContext& context);

ExitCode ShowServer(CommandContext& context);

// The replicas that are there, and how much each owns.
ExitCode ListReplicas(CommandContext& context);

// Product, API and stored format, a line each.
std::string VersionText();
ExitCode ShowVersion(CommandContext& context);

}  // namespace postkeeper::cli

#endif  // POSTKEEPER_CLI_SERVER_H_
