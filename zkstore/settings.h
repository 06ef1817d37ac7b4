// What a queue or a topic is told to do. docs and bounds: protos/postkeeper/v1/admin.proto.
#ifndef POSTKEEPER_ZKSTORE_SETTINGS_H_
#define POSTKEEPER_ZKSTORE_SETTINGS_H_

#include <cstdint>

#include "zkstore/environment.h"

namespace postkeeper {

// Durations are whole milliseconds, since that is what is stored.
struct QueueSettings {
  Duration lease_duration = std::chrono::seconds(30);
  Duration retry_backoff = std::chrono::seconds(1);
  Duration retry_backoff_max = std::chrono::minutes(10);
  std::int64_t max_messages = 1'000'000;
  std::int64_t max_bytes = 256 << 20;

  friend bool operator==(const QueueSettings&, const QueueSettings&) = default;
};

struct TopicSettings {
  Duration retention = std::chrono::hours(24);
  std::int64_t max_messages = 1'000'000;
  std::int64_t max_bytes = 256 << 20;

  friend bool operator==(const TopicSettings&, const TopicSettings&) = default;
};

}  // namespace postkeeper

#endif  // POSTKEEPER_ZKSTORE_SETTINGS_H_
