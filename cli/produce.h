// `postkeeper enqueue` and `postkeeper publish`.
#ifndef POSTKEEPER_CLI_PRODUCE_H_
#define POSTKEEPER_CLI_PRODUCE_H_

#include <map>
#include <optional>
#include <string>

#include "cli/command.h"
#include "cli/input.h"

namespace postkeeper::cli {

struct ProduceOptions {
  // A queue or a topic.
  std::string target;
  InputOptions input;
  // What every message gets.
  std::map<std::string, std::string> attributes;
  std::string content_type;
  std::optional<Duration> delay;
  std::optional<WallTime> deliver_at;
  // "": one is made up, so that our own repeats never write twice. If given, a repeat of the whole command with the
  // same input does not either: frame n has the id "ID" for n = 0, else "ID.n".
  std::string request_id;
  // "": none. Else that of the first message; of the one with number n, from 0, it is "ID.n".
  std::string dedup_id;
};

// Leaves room for the frame's number within the service's 64 bytes.
inline constexpr std::size_t kRequestIdBytesMax = 52;
// The same for the message's number within 128 bytes.
inline constexpr std::size_t kDedupIdBytesMax = 108;

// Both send one call if the input fits into one, else a stream of frames, up to 32 of them unanswered. When the
// connection breaks, unanswered frames are sent again under their request_ids on a new stream: written once (G4), in
// order (G5). Without any answer for the call timeout they give up and say how many messages are confirmed.
ExitCode Enqueue(const ProduceOptions& options, CommandContext& context);
ExitCode Publish(const ProduceOptions& options, CommandContext& context);

}  // namespace postkeeper::cli

#endif  // POSTKEEPER_CLI_PRODUCE_H_
