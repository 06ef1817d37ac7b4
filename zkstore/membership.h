// Which replicas there are: this process registers itself, and watches who else has.
#ifndef POSTKEEPER_ZKSTORE_MEMBERSHIP_H_
#define POSTKEEPER_ZKSTORE_MEMBERSHIP_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "zkstore/client.h"
#include "zkstore/layout.h"
#include "zkstore/signal.h"

namespace postkeeper {

// A replica as its registration describes it. Never changes while the process lives.
struct ReplicaInfo {
  ProcessId process{};
  std::string address;  // where other replicas reach it, host:port; "" if the registration cannot be read
  std::string version;  // of its build
  WallTime start_time{};

  friend bool operator==(const ReplicaInfo&, const ReplicaInfo&) = default;
};

// How it works. The registration is one ephemeral znode, the only one of the process: it goes at once when the session
// is closed, and when it expires after a crash. Under each new session it is made again. If somebody removes it while
// the session lives, it is made again too, since whoever is not registered counts as gone.
//
// The list of replicas is read when its watch fires, under each new session, and kLooksPerTimeout times within the
// session's timeout whatever the watch says. The latter is also what lets this process hear from ZooKeeper often
// enough to know that its session lives. At most one watch is set; looks are at least kLookPauseMin apart; the details
// of a replica are read once, and of at most kReplicasMax replicas.
//
// While ZooKeeper cannot be reached the table stays as it was last seen, and its age grows. A process that left and
// came back between two looks was never away for those who ask here.
//
// Threads: the table is thread-safe. Everything else runs on a strand of its own; the listener is called there, and
// must hand over and return. Held by shared_ptr; keeps itself alive from Start until Stop. The environment and the
// client outlive it.
class Membership : public std::enable_shared_from_this<Membership> {
 public:
  static constexpr std::size_t kReplicasMax = 1000;
  static constexpr int kLooksPerTimeout = 6;
  static constexpr Duration kLookPauseMin = std::chrono::milliseconds(10);

  // All may be empty. What they hear of includes this process.
  struct Listener {
    // This process is registered under a session under which it was not before.
    std::function<void()> on_registered;
    // The table has one more, one less.
    std::function<void(const ReplicaInfo& replica)> on_join;
    std::function<void(const ReplicaInfo& replica)> on_leave;
    // Registering or reading the list failed although there is a connection; it is tried again.
    std::function<void(const absl::Status& why)> on_trouble;
  };

  Membership(Environment& environment, zk::Client& client, const Layout& layout, ReplicaInfo self, Listener listener);

  // Registers this process and reads the list, once; OK when both is done. ZOOKEEPER_UNAVAILABLE: to be called again.
  // `dead_predecessor` is a process that cannot run any more; its registration is removed at once instead of being
  // waited out. Not beside another Join, and not after Start.
  Task<absl::Status> Join(std::optional<ProcessId> dead_predecessor);
  // Keeps both up to date from now on. Once, after Join.
  void Start();
  // The listener is not called any more when this returns. The registration stays until the session is closed.
  Task<void> Stop();

  const ReplicaInfo& self() const { return self_; }

  // The table as it was `age` ago, counted from the sending of the request that was answered with it.
  struct View {
    std::vector<ReplicaInfo> replicas;  // in the order of process ids
    Duration age{};
    bool is_complete = true;  // false: more than kReplicasMax are registered, and these are the first
  };
  // nullopt: it was never read.
  std::optional<View> view() const;
  // How many there are in the table; 0 before it was read.
  std::size_t size() const;

  // Whether a process was registered `age` ago.
  struct Standing {
    bool is_registered = false;
    Duration age{};
  };
  // nullopt: not known, since the table was never read, or is not complete and does not have it. That a process is
  // absent says nothing about one that has registered within `age`: to take a log away from its owner, look for the
  // owner's registration in ZooKeeper itself, on the session that has read the owner record (TakeOwnership does).
  std::optional<Standing> Find(const ProcessId& process) const;

 private:
  Task<absl::Status> JoinOnStrand(std::shared_ptr<Membership> self, std::optional<ProcessId> dead_predecessor);
  Task<void> StopOnStrand(std::shared_ptr<Membership> self);
  Task<void> Run(std::shared_ptr<Membership> self);
  Task<absl::Status> LookOnce();
  Task<absl::Status> Register(std::int64_t session_id);
  zk::Watcher MakeWatcher(std::uint64_t number);
  void Remove(const std::vector<ProcessId>& listed);
  Task<absl::Status> Add(const std::vector<ProcessId>& listed);
  bool is_watching() const { return watch_set_ > watch_fired_; }

  // Constant after construction.
  Environment& environment_;
  zk::Client& client_;
  const Layout layout_;
  const ReplicaInfo self_;
  const std::string record_;
  const asio::any_io_executor strand_;

  // Touched only on the strand.
  Listener listener_;
  bool is_stopped_ = false;
  std::int64_t registered_session_ = 0;
  // Watches are numbered. Each fires once, perhaps before the answer to the request that sets it is looked at.
  std::uint64_t watches_made_ = 0;
  std::uint64_t watch_set_ = 0;
  std::uint64_t watch_fired_ = 0;
  Signal wake_;

  // Written only on the strand.
  mutable absl::Mutex mutex_;  // held for the time of copying the table; no other lock is taken under it
  std::map<ProcessId, ReplicaInfo> replicas_ ABSL_GUARDED_BY(mutex_);
  std::optional<Instant> as_of_ ABSL_GUARDED_BY(mutex_);
  bool is_complete_ ABSL_GUARDED_BY(mutex_) = true;
};

}  // namespace postkeeper

#endif  // POSTKEEPER_ZKSTORE_MEMBERSHIP_H_
