// `postkeeper subscribe`.
#ifndef POSTKEEPER_CLI_SUBSCRIBE_H_
#define POSTKEEPER_CLI_SUBSCRIBE_H_

#include <cstdint>
#include <string>

#include "cli/command.h"

namespace postkeeper::cli {

struct SubscribeOptions {
  std::string topic;
  // "latest", "earliest", a position, a time, or a duration ("from so long ago").
  std::string from = "latest";
  // Ends after so many messages; 0: never.
  std::int64_t count = 0;
  // Ends when everything that was there has been printed.
  bool stops_when_caught_up = false;
};

// "", or what is wrong with it.
std::string CheckFrom(const std::string& from);

// Prints the messages of a topic until it is told to stop. When the stream breaks it goes on behind the last message
// printed: none is missed, none printed twice.
ExitCode Subscribe(const SubscribeOptions& options, CommandContext& context);

}  // namespace postkeeper::cli

#endif  // POSTKEEPER_CLI_SUBSCRIBE_H_
