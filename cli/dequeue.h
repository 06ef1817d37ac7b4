// Taking messages and settling them by hand: `postkeeper dequeue`, `ack`, `nack`, `extend`.
#ifndef POSTKEEPER_CLI_DEQUEUE_H_
#define POSTKEEPER_CLI_DEQUEUE_H_

#include <optional>
#include <string>
#include <vector>

#include "cli/command.h"

namespace postkeeper::cli {

struct DequeueOptions {
  std::string source;
  int max_messages = 1;
  Duration wait = std::chrono::seconds(1);
  std::optional<Duration> lease_duration;
  // Acked after they were printed, so that a reader that went away loses nothing.
  bool acks = false;
};

struct SettleOptions {
  std::string source;
  // One "-" alone: one token per line of standard input.
  std::vector<std::string> tokens;
};

struct NackOptions {
  SettleOptions settle;
  bool releases = false;
  bool rejects = false;
  std::optional<Duration> delay;
  std::string reason;
};

ExitCode Dequeue(const DequeueOptions& options, CommandContext& context);
ExitCode Ack(const SettleOptions& options, CommandContext& context);
ExitCode Nack(const NackOptions& options, CommandContext& context);
ExitCode Extend(const SettleOptions& options, std::optional<Duration> lease_duration, CommandContext& context);

}  // namespace postkeeper::cli

#endif  // POSTKEEPER_CLI_DEQUEUE_H_
