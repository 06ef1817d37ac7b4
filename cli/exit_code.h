// What the program's exit says. Scripts rely on the numbers: they are for ever.
#ifndef POSTKEEPER_CLI_EXIT_CODE_H_
#define POSTKEEPER_CLI_EXIT_CODE_H_

namespace postkeeper::cli {

enum class ExitCode {
  kDone = 0,
  kFailed = 1,        // Refused, or something else went wrong; stderr says what.
  kUsage = 2,         // The command line itself is wrong; nothing was sent.
  kNothingThere = 3,  // dequeue: no message came in time.
  kNotFound = 4,      // No such queue, topic, subscription or health service.
  kUnreachable = 5,   // No server answers there, or it cannot serve at the moment.
};

}  // namespace postkeeper::cli

#endif  // POSTKEEPER_CLI_EXIT_CODE_H_
