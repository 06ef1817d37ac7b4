// The time as ZooKeeper's leader has it.
#ifndef POSTKEEPER_ZKSTORE_LEADER_CLOCK_H_
#define POSTKEEPER_ZKSTORE_LEADER_CLOCK_H_

#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "zkstore/client.h"
#include "zkstore/layout.h"

namespace postkeeper {

// Ages in the store are counted by the leader's clock, which stamps every znode; a replica's own may be hours off. So
// the leader's time is asked for, by writing this process's registration once more as it is, and goes on by the boot
// clock for kAskAgainAfter.
//
// Thread-safe. The environment and the client outlive it.
class LeaderClock {
 public:
  static constexpr Duration kAskAgainAfter = std::chrono::minutes(1);

  LeaderClock(Environment& environment, zk::Client& client, const Layout& layout, const ProcessId& process)
      : environment_(environment), client_(client), path_(layout.Replica(process)) {}

  // Never later than it is, but for the leaders' clocks themselves. ZOOKEEPER_UNAVAILABLE: also while this process is
  // not registered.
  Task<absl::StatusOr<WallTime>> Now();

 private:
  struct Told {
    WallTime time{};
    Instant at{};  // when that was heard
  };

  Environment& environment_;
  zk::Client& client_;
  const std::string path_;
  absl::Mutex mutex_;
  std::optional<Told> told_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace postkeeper

#endif  // POSTKEEPER_ZKSTORE_LEADER_CLOCK_H_
