// Gives logs to the replicas that should have them.
#ifndef POSTKEEPER_SERVICE_BALANCER_H_
#define POSTKEEPER_SERVICE_BALANCER_H_

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "service/log_handle.h"
#include "zkstore/signal.h"

namespace postkeeper {

// Which replica should own a log, and the moving of logs that another one should own.
//
// How it works. Rendezvous hashing (zkstore/rendezvous.h) over the registered replicas names one for each log. It takes
// the log when it is free; a replica that has it keeps it. So after a replica has joined, the others have too much:
// every kInterval each of them looks through its logs and hands those that another replica should have over to it, in
// good order, with their leases: logs that it has had for `probation`, to replicas that have been there for as long,
// kAtATime at a time, the next ones when these have an owner. One that nobody takes (its new owner has not heard of it,
// or is in trouble) comes back after LogOwnership::kFreeForAnyone, and is not handed over again for kRest.
//
// Threads: IsFirstChoice, OnJoin and OnLeave are thread-safe. Run works on a strand of its own, until Stop. Held by
// shared_ptr; the environment and the membership outlive it.
class Balancer : public std::enable_shared_from_this<Balancer> {
 public:
  static constexpr Duration kInterval = std::chrono::seconds(5);
  static constexpr Duration kRest = std::chrono::minutes(5);
  static constexpr int kAtATime = 8;

  // `logs` gives the logs that there are, whoever owns them. Thread-safe.
  Balancer(Environment& environment, std::function<std::vector<LogHandle>()> logs, ProcessId self, Duration probation);

  // A log that this replica should take, being free. The one that let go of it, or had it and is gone, does not count.
  bool IsFirstChoice(const Uid& log, const OwnerView& free) const;

  void OnJoin(const ProcessId& replica);
  void OnLeave(const ProcessId& replica);

  void Start();
  void Stop();

 private:
  struct Candidate {
    ProcessId replica;
    Instant since;
  };
  // Logs that are being handed over together.
  struct Round;

  Task<void> Run(std::shared_ptr<Balancer> self);
  std::vector<LogHandle> Misplaced();
  Task<bool> HandOver(std::shared_ptr<Balancer> self, std::vector<LogHandle> logs);
  Task<void> HandOverOne(std::shared_ptr<Balancer> self, LogHandle log, std::shared_ptr<Round> round);

  Environment& environment_;
  const std::function<std::vector<LogHandle>()> logs_;
  const ProcessId self_;
  const Duration probation_;
  const asio::any_io_executor strand_;

  // Touched only on the strand.
  bool is_stopped_ = false;
  Signal wake_;
  absl::flat_hash_map<Uid, Instant> stays_until_;  // of the logs that were owned at the last look

  mutable absl::Mutex mutex_;  // held for the time of copying the replicas; no other lock is taken under it
  std::vector<Candidate> replicas_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_BALANCER_H_
