// What the service's refusals mean to the person at the command line: the one table from gRPC statuses to exit codes.
#ifndef POSTKEEPER_CLI_FAILURE_H_
#define POSTKEEPER_CLI_FAILURE_H_

#include <grpcpp/support/status.h>

#include <map>
#include <string>

#include "cli/exit_code.h"

namespace postkeeper::cli {

// google.rpc.ErrorInfo, as far as it is there.
struct ErrorInfo {
  std::string reason;  // "" if what failed is not the service but the way to it.
  std::map<std::string, std::string> metadata;
};

ErrorInfo GetErrorInfo(const grpc::Status& status);

ExitCode ExitCodeOf(const grpc::Status& status);

// True if the same call or stream may be tried again later: the way was lost, or the service says so.
bool IsTransient(const grpc::Status& status);

}  // namespace postkeeper::cli

#endif  // POSTKEEPER_CLI_FAILURE_H_
