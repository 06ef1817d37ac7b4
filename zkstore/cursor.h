// The durable record of what a source has settled, and its one writer.
#ifndef POSTKEEPER_ZKSTORE_CURSOR_H_
#define POSTKEEPER_ZKSTORE_CURSOR_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "zkstore/client.h"
#include "zkstore/cursor_fate.h"
#include "zkstore/dedup_store.h"
#include "zkstore/layout.h"
#include "zkstore/owner.h"
#include "zkstore/settled_set.h"
#include "zkstore/signal.h"

namespace postkeeper {

// One source's cursor, in the hands of the owner of its log.
//
// How it works. Changes that come while a write is on its way wait and go together into the next one:
//
//   check(owner, version)  set(cursor, version)  set(head)  parts...  ids of the batches  delete(batches wholly
//   settled)...
//
// One write at a time; it is frozen when it is sent and sent again, the same, until its outcome is known: BADVERSION on
// the cursor after a lost reply means that an earlier copy is in. A batch that is already deleted (NONODE) is left out
// and the rest sent again. A change counts as durable when the write that holds it is.
//
// BADVERSION on the owner means that this process was deposed: the cursor is dead, and calls that were not sent end
// with NO_OWNER. The write itself is not in, unless the reply to an earlier copy was lost; then the cursor is read to
// find out (cursor_fate.h), and its calls end with OK, NO_OWNER, or OUTCOME_UNKNOWN if it cannot be known.
//
// While ZooKeeper does not answer for kPatience, calls are told OUTCOME_UNKNOWN; their changes stay and are written
// when it is back.
//
// Lives on the strand of its log; held by shared_ptr, keeps itself alive while it works.
class Cursor : public std::enable_shared_from_this<Cursor> {
 public:
  static constexpr std::size_t kDeletesMax = 256;           // of one write
  static constexpr std::size_t kWriteBytesMax = 256 << 10;  // about; one part alone may be larger
  static constexpr std::size_t kHandedOverLeasesMax = 4096;
  static constexpr int kEpochsKept = 8;
  static constexpr std::int32_t kVersionMax = 1 << 30;  // far from the wrap of ZooKeeper's 32-bit versions
  static constexpr Duration kPatience = std::chrono::milliseconds(1500);
  static constexpr int kFateReadsMax = 100;  // to find out about the last write of a deposed owner

  // What the head record says (DESIGN: what is stored, up to a position).
  struct Head {
    Position oldest;
    Position counted;
    std::int64_t messages = 0;
    std::int64_t bytes = 0;
    std::int64_t batches = 0;
  };

  // The epochs of one reign.
  struct EpochRange {
    std::int64_t first = 0;
    std::int64_t last = 0;
    bool Contains(std::int64_t epoch) const { return first <= epoch && epoch <= last; }
    friend bool operator==(const EpochRange&, const EpochRange&) = default;
  };

  // A message is settled, or (with notes) something is to be remembered of it.
  struct Change {
    Position position;
    std::optional<SettledSet::Notes> notes;
  };

  struct HandedOverLease {
    Position position;
    std::uint32_t number = 0;
    Duration remaining{};
    EpochRange epochs;  // those that its token may name
  };

  struct Listener {
    std::function<Head()> head;                 // asked before each write
    std::function<void(absl::Status)> on_lost;  // deposed, or the store is damaged; called once, nothing after it
    std::function<void(std::size_t changes, std::size_t deletes)> on_written;
  };

  using Done = absl::AnyInvocable<void(absl::Status)>;

  Cursor(Environment& environment, zk::Client& client, const Layout& layout, const Uid& log, const Uid& source,
         const OwnerView& held, asio::any_io_executor strand, Listener listener,
         std::int32_t version_max = kVersionMax);
  ~Cursor();

  // Reads cursor and parts; to be called once, after the ownership was taken, before anything else.
  // ZOOKEEPER_UNAVAILABLE: call again. STORE_CORRUPT.
  Task<absl::Status> Load();

  // Where the ids of the batches go that its writes delete; the same strand. Without it they have none.
  void CarryIdsTo(std::shared_ptr<DedupStore> dedup) { dedup_ = std::move(dedup); }

  // What is stored and what is on its way, together.
  const SettledSet& settled() const { return settled_; }
  SettledSet& settled() { return settled_; }
  // Leases that the owner before handed over; empty after the first write.
  const std::vector<HandedOverLease>& handed_over() const { return handed_over_; }

  // `done` is called when all of the changes are durable, or with the error. Never refused for want of room.
  void Write(std::vector<Change> changes, Done done);
  // The same, awaited.
  Task<absl::Status> WriteAndWait(std::vector<Change> changes);

  // Returns OK when a write begun after this call has succeeded: until then nobody else had taken the log. The same
  // errors.
  Task<absl::Status> Fence();
  // The head record as it is now; it is part of each write, and goes without one if others append much.
  zk::Op HeadOp() const;

  // A batch of which everything is settled is still there; the next write deletes it.
  void DeleteLater(Position batch) { leftover_batches_.push_back(batch); }

  // Takes the ownership anew under the same memory (after a session expired).
  void SetOwner(const OwnerView& held) { held_ = held; }

  // Waits for what is on its way, at most `timeout`, then gives the log back with these leases. No call after it.
  Task<absl::Status> LetGo(std::vector<HandedOverLease> leases, Duration timeout);
  // Another process has taken the log, as the caller knows: as if the cursor had found out by itself, but for the call
  // of on_lost.
  void Depose();
  // Stops writing; open calls end with OUTCOME_UNKNOWN.
  void Abandon();

 private:
  struct Intake {
    std::vector<Change> changes;
    std::size_t next = 0;
    Done done;
  };
  struct Frozen {
    std::vector<zk::Op> ops;
    std::vector<Done> done;
    std::size_t changes = 0;
    std::size_t deletes = 0;
    std::size_t cursor_op = 1;  // the place of the operation whose version tells whether the write is in
    bool has_unknown_copy = false;
    bool starts_generation = false;
  };

  Task<void> Run(std::shared_ptr<Cursor> self);
  Frozen Freeze(const std::vector<HandedOverLease>* leases);
  void TakeIntake(Frozen& write, std::vector<Position>& deletes);
  void Take(std::vector<Change> changes, Done done);
  Task<absl::Status> Await(void (Cursor::*write)(std::vector<Change>, Done), std::vector<Change> changes);
  Task<bool> Send(Frozen& write);
  Task<bool> IsStillOurs(Frozen& write);
  bool Mend(Frozen& write, const zk::Response& reply);
  Task<void> AnswerByFate(Frozen& write);
  static void Answer(Frozen& write, const absl::Status& answer);
  void Lose(const absl::Status& why);
  void Die(const absl::Status& answer);
  void GiveUpWaiting(Frozen& write);

  // Constant after construction.
  Environment& environment_;
  zk::Client& client_;
  const Layout layout_;
  const Uid log_;
  const Uid source_;
  const asio::any_io_executor strand_;
  const Listener listener_;
  const std::int32_t version_max_;  // of one generation

  // Touched only on the strand.
  OwnerView held_;
  SettledSet settled_;
  std::shared_ptr<DedupStore> dedup_;  // may be null
  std::vector<HandedOverLease> handed_over_;
  std::vector<std::pair<std::int64_t, CursorState>> epochs_;  // epoch, state overwritten
  std::optional<std::uint32_t> generation_;                   // none: the cursor is yet to be created
  std::int32_t version_ = 0;
  std::deque<Intake> intake_;
  std::deque<Position> leftover_batches_;
  bool is_running_ = false;
  bool is_lost_ = false;       // nothing is sent any more
  bool is_abandoned_ = false;  // nothing is asked any more, either
  Instant connected_at_{};
  Signal wake_;
};

}  // namespace postkeeper

#endif  // POSTKEEPER_ZKSTORE_CURSOR_H_
