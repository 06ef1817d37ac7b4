// Writes to one log: group commit in a version chain.
#ifndef POSTKEEPER_ZKSTORE_LOG_APPENDER_H_
#define POSTKEEPER_ZKSTORE_LOG_APPENDER_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "zkstore/batch.h"
#include "zkstore/client.h"
#include "zkstore/layout.h"
#include "zkstore/signal.h"

namespace postkeeper {

struct AppendOptions {
  int in_flight_max = 4;                    // batches on their way at a time
  std::size_t batch_bytes_max = 512 << 10;  // encoded, about; one call always fits
  int batch_messages_max = Batch::kMessagesMax;
  std::uint32_t segment_batches_max = 4096;             // whoever creates this one seals the segment
  std::size_t queued_bytes_max = 32 << 20;              // given and not yet sent; past it RESOURCE_EXHAUSTED
  Duration patience = std::chrono::milliseconds(1500);  // how long calls wait for a lost ZooKeeper
  // Where a chain moves on to the next generation: far from the wrap of ZooKeeper's 32-bit versions, where a version of
  // -1 would mean "any" and the chain would fence nothing.
  std::int32_t chain_versions_max = 1 << 30;
  Duration long_delay = std::chrono::minutes(1);   // messages delayed by more get batches of their own
  Duration idle_after = std::chrono::minutes(10);  // without calls; then the producer's znode is removed
};

// Where the messages of one call went.
struct Appended {
  Writer writer;
  std::uint32_t first_index = 0;
  std::uint32_t count = 0;  // of those that were written; the others are:
  Duplicates duplicates = nullptr;

  std::uint32_t duplicate_count() const { return duplicates ? static_cast<std::uint32_t>(duplicates->size()) : 0; }
  // Of all of them.
  std::uint32_t size() const { return count + duplicate_count(); }
  std::string MessageId(std::uint32_t i) const;
};

// One process's writer of one log.
//
// How it works. Calls that come at the same time share a batch. At most in_flight_max batches are on their way, and at
// most two of them when the next one is small; a free slot sends at once, and while all are busy the next batch grows.
// Each batch is one multi:
//
//   set(producer, v)  [check(owner, version)]  check(segment, 0)  create(b-, SEQUENTIAL)
//
// with v rising by one from batch to batch: the producer's chain. ZooKeeper carries out the requests of a session in
// order, so when one fails all later ones of the chain fail with BADVERSION, and the order of the batches holds.
//
// Any number of processes write one log, each in its own chain. Each begins in the last segment that it finds, and
// finds the next one when its own is sealed, by whoever it was. The chain's znode is made at the first append, and
// removed when there was none for idle_after; then the next one begins the next generation.
//
// What is sent is frozen: the bytes and the version of a batch never change. After a failure the appender stops
// sending, waits for all replies, reads what the producer's version says is in, and goes on in order with the same
// bytes at the same versions. A copy that was delayed and comes late finds its version used and changes nothing. A
// version whose batch is given up is burnt first, so that the copies of later batches stay valid.
//
// When ZooKeeper does not answer for `patience`, the calls are told: OUTCOME_UNKNOWN for what was sent (it is sent
// again when the connection is back, since it may be in), ZOOKEEPER_UNAVAILABLE for what was not (it is dropped).
//
// Lives on one strand; all calls are made there, and callbacks are called there. Held by shared_ptr; it keeps itself
// alive while it works. Errors: NOT_FOUND (the log is gone; the caller resolves its name again), OUTCOME_UNKNOWN,
// ZOOKEEPER_UNAVAILABLE, NO_OWNER (the owner's version given was no longer right; nothing was written),
// TOO_MANY_CALLS, REPLICA_DRAINING.
class LogAppender : public std::enable_shared_from_this<LogAppender> {
 public:
  using Done = absl::AnyInvocable<void(absl::StatusOr<Appended>)>;

  struct Listener {
    // A batch of this appender is in at `position`. Called in the order of the log.
    std::function<void(Position position, std::shared_ptr<const Batch> batch)> on_appended;
    // A batch is in, but not where (its reply was lost), or a segment was sealed (null): whoever reads the log should
    // look.
    std::function<void(std::shared_ptr<const Batch> batch)> on_appended_somewhere;
    // Nothing was appended for long.
    std::function<void()> on_idle;
  };

  // `next_generation` answers numbers that this process has not used for a chain of this log before.
  LogAppender(Environment& environment, zk::Client& client, const Layout& layout, const Uid& log,
              const ProcessId& process, std::function<std::uint32_t()> next_generation, asio::any_io_executor strand,
              AppendOptions options, Listener listener);
  ~LogAppender();

  // All messages go into one batch, or none is written. `owner_version`, if set, is checked in the same write.
  // `duplicates` are the messages of the same call that are not to be written; they are part of the answer. A call with
  // an id, of either kind, that was told OUTCOME_UNKNOWN is told its fate by a second call of `done`.
  void Append(std::vector<NewMessage> messages, std::string request_id, std::optional<std::int32_t> owner_version,
              Done done, Duplicates duplicates = {});

  // Refuses new calls, waits for what was sent, removes the producer's znode if nothing is unresolved. Gives up after
  // `timeout`; then open calls end with OUTCOME_UNKNOWN.
  Task<void> Stop(Duration timeout);

  // Calls not yet answered.
  std::int64_t calls_open() const { return calls_open_; }

 private:
  struct Waiter {
    Done done;
    std::uint32_t first_index;
    std::uint32_t count;
    Duplicates duplicates;
    bool wants_fate;        // has an id
    bool was_told = false;  // OUTCOME_UNKNOWN, for the time being
  };
  struct Forming {
    BatchBuilder builder;
    std::vector<Waiter> waiters;
    bool is_long_delayed = false;
    std::optional<std::int32_t> owner_version;
  };
  enum class Stage { kToSend, kInFlight, kAnswered };
  struct Frozen {
    std::shared_ptr<const Batch> batch;
    std::string encoded;
    std::int32_t version = 0;
    std::optional<std::int32_t> owner_version;
    std::vector<Waiter> waiters;
    Stage stage = Stage::kToSend;
    bool was_sent = false;          // at least one copy left us
    bool has_unknown_copy = false;  // and the reply of one of them was lost
    zk::Response reply;
  };

  // The front end: forming and sending.
  bool FitsInto(const Forming& forming, std::size_t bytes, int messages, bool is_long_delayed,
                const std::optional<std::int32_t>& owner_version) const;
  bool HasRoomFor(const Forming& forming, int in_flight) const;
  void SendWhatFits();
  void Freeze();
  void Send(const std::shared_ptr<Frozen>& frozen);
  void OnReply(const std::shared_ptr<Frozen>& frozen, zk::Response reply);
  void CompleteFront(std::optional<Position> position);
  void FinishWaiters(Frozen& frozen, const absl::Status& failure);
  void TellUnknown(Frozen& frozen);
  void FailForming(const absl::Status& failure);
  void GiveUpWaiting();
  void WatchPatience();
  bool HasInFlight() const;

  // The slow path: one coroutine that prepares, recovers and seals.
  Task<void> Run(std::shared_ptr<LogAppender> self);
  Task<bool> Prepare();
  Task<bool> FindSegment();
  Task<bool> Recover();
  Task<bool> ReadProducer();
  Task<bool> BurnFront(absl::Status failure);
  Task<bool> Seal();
  Task<bool> Pause();
  void WatchIdleness();
  Task<void> RemoveProducer();
  void MoveToNextGeneration();
  void LogIsGone();
  void WakeRun();

  // Constant after construction.
  Environment& environment_;
  zk::Client& client_;
  const Layout layout_;
  const Uid log_;
  const ProcessId process_;
  const std::function<std::uint32_t()> next_generation_;
  const asio::any_io_executor strand_;
  const AppendOptions options_;
  const Listener listener_;

  // Touched only on the strand.
  std::deque<Forming> forming_;                   // not yet frozen, oldest first
  std::deque<std::shared_ptr<Frozen>> pipeline_;  // frozen and unresolved, in order of versions
  std::size_t queued_bytes_ = 0;
  std::int64_t calls_open_ = 0;
  bool is_running_ = false;   // Run has been started
  bool is_prepared_ = false;  // segment and producer are known
  bool is_broken_ = false;    // a reply was not OK; nothing is sent until Recover is through
  bool must_seal_ = false;
  bool is_stopping_ = false;
  bool is_stop_overdue_ = false;
  bool is_idle_ = false;    // for idle_after
  Instant connected_at_{};  // when the session was last seen connected, or calls began to wait
  bool is_gone_ = false;    // the log was deleted
  std::uint64_t segment_ = 0;
  std::uint32_t generation_ = 0;
  std::int32_t next_version_ = 0;
  Signal wake_;     // for Run
  Signal drained_;  // for Stop
  std::unique_ptr<Timer> patience_timer_;
  std::unique_ptr<Timer> idle_timer_;
  bool is_patience_running_ = false;
};

}  // namespace postkeeper

#endif  // POSTKEEPER_ZKSTORE_LOG_APPENDER_H_
