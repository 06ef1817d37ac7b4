// All queues and topics of this replica, by name.
#ifndef POSTKEEPER_SERVICE_BROKER_H_
#define POSTKEEPER_SERVICE_BROKER_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/btree_map.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "service/engine_context.h"
#include "service/names.h"
#include "service/queue_engine.h"
#include "service/topic_engine.h"
#include "zkstore/membership.h"
#include "zkstore/owner_census.h"
#include "zkstore/signal.h"

namespace postkeeper {

class Balancer;
class LogHandle;

// Opens the store, joins the replicas that are registered there, and keeps an engine for each queue and topic of the
// catalog: all of them from the start, since a log without an owner is not trimmed, and those that other replicas
// create within kDiscoverInterval, or when one of them goes.
//
// Threads: Find... and the flags are thread-safe; tasks may be spawned on any executor of the environment.
// Errors: QUEUE_NOT_FOUND and TOPIC_NOT_FOUND (the text gives the command that creates it), OTHER_SETTINGS,
// ETAG_MISMATCH, ZOOKEEPER_UNAVAILABLE, OUTCOME_UNKNOWN, NO_OWNER, REPLICA_DRAINING, STORE_FORMAT_NEWER.
class Broker {
 public:
  static constexpr Duration kDiscoverInterval = std::chrono::seconds(10);

  struct Options {
    bool creates_automatically = false;  // queues and topics of namespace default, at first use
    std::string version;                 // of this program, for the registration
    // Of the process that ran here before and cannot run any more (its data directory is locked by us): its
    // registration is removed at once instead of being waited out.
    std::optional<ProcessId> dead_predecessor;
    Duration balance_after = std::chrono::seconds(30);        // see Balancer
    std::function<std::int64_t()> unreachable_replicas = {};  // for the gauge; thread-safe
  };

  Broker(EngineContext& context, Options options);
  ~Broker();

  // Tries until ZooKeeper answers; returns STORE_FORMAT_NEWER or STORE_CORRUPT if that does not help, else OK when the
  // replica is registered and its engines are started. Returns early with REPLICA_DRAINING when Drain is called.
  Task<absl::Status> Start();

  // Ready to serve: started, the session is up, not draining.
  bool is_ready() const;
  bool is_draining() const { return is_draining_; }

  // The fast path for each call: null if it is not open here, then ask Open...
  std::shared_ptr<QueueEngine> FindQueue(const Name& name) const;
  std::shared_ptr<TopicEngine> FindTopic(const Name& name) const;
  // Looks it up in the catalog; creates it where that is allowed.
  Task<absl::StatusOr<std::shared_ptr<QueueEngine>>> OpenQueue(Name name);
  Task<absl::StatusOr<std::shared_ptr<TopicEngine>>> OpenTopic(Name name);

  // The administration of both kinds; the settings in the entries are of the kind asked for.
  Task<absl::StatusOr<LogEntry>> Create(Name name, LogSettings settings);
  Task<absl::StatusOr<LogEntry>> Get(Name name);
  Task<absl::StatusOr<std::vector<LogEntry>>> List(CheckedList list, LogKind kind);
  Task<absl::StatusOr<LogEntry>> UpdateQueue(CheckedUpdateQueue update);
  Task<absl::StatusOr<LogEntry>> UpdateTopic(CheckedUpdateTopic update);
  Task<absl::Status> Delete(CheckedDelete request);

  // The NOT_FOUND error for this name, as every call gives it.
  absl::Status NotFound(const Name& name) const;

  // No new work: waiting calls end, engines stop dispatching.
  void Drain();
  // Closes all engines and gives the logs back; the registration goes with the session. At most `timeout`.
  Task<void> Stop(Duration timeout);

  const EngineContext& context() const { return context_; }
  // Which replicas there are.
  const Membership& membership() const { return *membership_; }
  // How many logs each of them owns.
  OwnerCensus& census() const { return *census_; }

 private:
  Task<absl::Status> StartOnce();
  Task<absl::Status> OpenNew();
  bool IsOpen(const LogName& name) const;
  std::vector<LogHandle> Logs() const;
  ReplicaGauges Gauges() const;
  void Adopt(const LogEntry& entry);
  template <typename Engine>
  std::shared_ptr<Engine> AdoptEngine(absl::btree_map<LogName, std::shared_ptr<Engine>>& engines, const LogEntry& entry)
      ABSL_LOCKS_EXCLUDED(mutex_);
  Task<absl::StatusOr<LogEntry>> GetOrCreate(Name name, LogSettings defaults);
  template <typename Engine>
  void CloseFormer(std::shared_ptr<Engine> former);
  void CloseGone();
  template <typename Settings, typename Checked>
  Task<absl::StatusOr<LogEntry>> Update(Checked update);
  template <typename Engine>
  Task<absl::Status> DeleteEngine(std::shared_ptr<Engine> engine, Name name);
  void Forget(const Name& name, const Uid& uid);
  void SpreadEntry(const LogEntry& entry);
  Membership::Listener MembershipListener();
  void TellEngines();
  void LookForFreeLogs();
  Task<void> DiscoverLogs();
  Task<void> SweepTrash();
  Task<void> CloseAll(std::vector<std::shared_ptr<QueueEngine>> queues,
                      std::vector<std::shared_ptr<TopicEngine>> topics, asio::any_io_executor strand, Duration timeout);

  EngineContext& context_;
  const Options options_;
  std::atomic<bool> is_started_ = false;
  std::atomic<bool> is_draining_ = false;
  std::atomic<bool> is_stopped_ = false;
  const std::shared_ptr<Membership> membership_;
  const std::shared_ptr<OwnerCensus> census_;
  const std::shared_ptr<Balancer> balancer_;
  const asio::any_io_executor strand_;  // of discover_
  Signal discover_;

  mutable absl::Mutex mutex_;  // held for constant time; no other lock is taken under it
  absl::btree_map<LogName, std::shared_ptr<QueueEngine>> queues_ ABSL_GUARDED_BY(mutex_);
  absl::btree_map<LogName, std::shared_ptr<TopicEngine>> topics_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_BROKER_H_
