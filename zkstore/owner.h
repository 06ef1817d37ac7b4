// Who works for a log: the owner record, whose version fences every write on the log's behalf.
#ifndef POSTKEEPER_ZKSTORE_OWNER_H_
#define POSTKEEPER_ZKSTORE_OWNER_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "zkstore/client.h"
#include "zkstore/layout.h"

namespace postkeeper {

// Versions of a segment's znode. It is never written otherwise.
inline constexpr std::int32_t kSegmentOpen = 0;
inline constexpr std::int32_t kSegmentSealed = 1;

// The owner record as read.
struct OwnerView {
  enum class State { kNobody, kProcess, kDeleted };

  State state = State::kNobody;
  std::int64_t epoch = 0;  // the count of owners so far
  // Of its reign, which a new session goes on with under another epoch; and of the reign before that one. Between them
  // lie the epochs of the last owner whose leases the owner has to know.
  std::int64_t first_epoch = 0;
  std::int64_t first_epoch_before = 0;
  std::uint64_t taker = 0;      // kProcess: who took it there; see TakeOptions
  ProcessId process{};          // kProcess: the owner; kNobody: who let go of it, or zero
  std::string address;          // kProcess only
  std::int32_t version = 0;     // the fence: every write of the owner checks it
  WallTime written{};           // when, by the clock of ZooKeeper's leader
  bool leases_unknown = false;  // kNobody: who let go had given out nothing, and did not know what the owner before had
  // What TakeOwnership returns: nobody knows which leases the owner before had given out, since it had not let go.
  bool was_let_down = false;
};

// NOT_FOUND if there is no such log. DATA_LOSS if the record cannot be read. ZOOKEEPER_UNAVAILABLE.
Task<absl::StatusOr<OwnerView>> ReadOwner(zk::Client& client, const Layout& layout, Uid log, zk::Watcher watcher = {});

// Makes this process the owner and begins the next epoch; from the moment of success no write of an earlier owner can
// be committed. Takes a log of this very process (a process that lost its session, or its memory of having taken the
// log, takes it again), and a free one, of nobody or of a process that is not registered, unless `may_take` (empty:
// always) refuses it. NO_OWNER if it does, or, naming the other's address, if a registered process has the log;
// NOT_FOUND if the log is deleted or absent; ZOOKEEPER_UNAVAILABLE if the outcome is not known: to be called again.
struct TakeOptions {
  std::function<bool(const OwnerView& free)> may_take = {};
  // Whoever takes in this process; not 0. It knows of its own takes only.
  std::uint64_t taker = 0;
  // The first epoch of the latest reign in which the taker has given out leases; 0: none. A record of its own with
  // another reign is of a take that led to nothing, and whose predecessor is still the one whose leases are out.
  std::int64_t served_reign = 0;
  bool keeps_reign = false;  // the reign goes on under a new session
};
Task<absl::StatusOr<OwnerView>> TakeOwnership(zk::Client& client, const Layout& layout, Uid log, ProcessId process,
                                              std::string address, TakeOptions options = {});

// The operation that gives the log back, for the last write of its owner.
zk::Op LetGoOp(const Layout& layout, const Uid& log, const OwnerView& held);
// What an owner lets go of that has given out nothing yet: its reign counts as one with that of the owner before, whose
// leases it does not know.
OwnerView AsNeverServed(OwnerView held);
// The operation that ends the log.
zk::Op MarkDeletedOp(const Layout& layout, const Uid& log, const OwnerView& held);
// The data of the record of a new log.
std::string NobodysOwnerRecord();

// The error for a reply of ZooKeeper that the caller has no better words for.
absl::Status UnavailableError(const zk::Response& response, std::string_view what);

}  // namespace postkeeper

#endif  // POSTKEEPER_ZKSTORE_OWNER_H_
