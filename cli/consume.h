// `postkeeper consume`.
#ifndef POSTKEEPER_CLI_CONSUME_H_
#define POSTKEEPER_CLI_CONSUME_H_

#include <cstdint>
#include <optional>
#include <string>

#include "cli/command.h"

namespace postkeeper::cli {

struct ConsumeOptions {
  std::string source;
  // Run for each message; "": messages are printed, then acked.
  std::string command;
  int parallel = 1;  // Commands at a time.
  // Messages held beside those being worked on. Unset: with a command as many as `parallel`, else 100.
  std::optional<int> prefetch;
  // Where the command's output goes, before the ack; "": to our own stdout.
  std::string output_topic;
  std::optional<Duration> lease_duration;
  // When to end by itself: after so many messages (0: never), after so long without one, when the source holds nothing.
  std::int64_t count = 0;
  std::optional<Duration> idle_exit;
  bool ends_when_empty = false;
};

inline constexpr int kParallelMax = 1000;
inline constexpr int kPrefetchMax = 5000;

// Works on messages until it is told to stop, or as the options say. At a stop request it takes no more, lets the
// running commands finish, settles, and is done. A message whose command did not say 0 is given back with the exit code
// as reason. Streams that break are opened again, for ever; what was not settled by then is settled on the next one.
ExitCode Consume(const ConsumeOptions& options, CommandContext& context);

}  // namespace postkeeper::cli

#endif  // POSTKEEPER_CLI_CONSUME_H_
