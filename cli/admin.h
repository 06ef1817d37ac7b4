// `postkeeper queue ...` and `postkeeper topic ...`.
#ifndef POSTKEEPER_CLI_ADMIN_H_
#define POSTKEEPER_CLI_ADMIN_H_

#include <cstdint>
#include <optional>
#include <string>

#include "cli/command.h"

namespace postkeeper::cli {

// What was not given stays as it is (update) or gets its default (create).
struct QueueSettings {
  std::string name;
  std::optional<Duration> lease_duration;
  std::optional<int> max_attempts;
  std::optional<std::string> dead_letter_queue;
  std::optional<Duration> retry_backoff;
  std::optional<Duration> retry_backoff_max;
  std::optional<std::int64_t> max_messages;
  std::optional<std::int64_t> max_bytes;
};

struct TopicSettings {
  std::string name;
  std::optional<Duration> retention;
  std::optional<std::int64_t> max_messages;
  std::optional<std::int64_t> max_bytes;
};

struct UpdateOptions {
  std::string etag;
  bool creates_if_missing = false;
};

struct DeleteOptions {
  std::string name;
  std::string etag;
  bool allows_missing = false;
};

ExitCode CreateQueue(const QueueSettings& settings, CommandContext& context);
ExitCode UpdateQueue(const QueueSettings& settings, const UpdateOptions& options, CommandContext& context);
ExitCode ShowQueue(const std::string& name, CommandContext& context);
ExitCode ListQueues(const std::string& name_space, CommandContext& context);
ExitCode DeleteQueue(const DeleteOptions& options, CommandContext& context);
ExitCode PurgeQueue(const std::string& name, bool takes_leased_too, CommandContext& context);

ExitCode CreateTopic(const TopicSettings& settings, CommandContext& context);
ExitCode UpdateTopic(const TopicSettings& settings, const UpdateOptions& options, CommandContext& context);
ExitCode ShowTopic(const std::string& name, CommandContext& context);
ExitCode ListTopics(const std::string& name_space, CommandContext& context);
ExitCode DeleteTopic(const DeleteOptions& options, CommandContext& context);

}  // namespace postkeeper::cli

#endif  // POSTKEEPER_CLI_ADMIN_H_
