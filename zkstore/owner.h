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
  std::int64_t epoch = 0;    // the count of owners so far
  ProcessId process{};       // kProcess: the owner; kNobody: who let go of it, or zero
  std::string address;       // kProcess only
  std::int32_t version = 0;  // the fence: every write of the owner checks it
  WallTime written{};        // when, by the clock of ZooKeeper's leader
  // What TakeOwnership returns: the owner before had not let go of it, so nobody knows which leases it had given out.
  bool was_let_down = false;
};

// NOT_FOUND if there is no such log. DATA_LOSS if the record cannot be read. ZOOKEEPER_UNAVAILABLE.
Task<absl::StatusOr<OwnerView>> ReadOwner(zk::Client& client, const Layout& layout, Uid log, zk::Watcher watcher = {});

// Makes this process the owner and begins the next epoch; from the moment of success no write of an earlier owner can
// be committed. Takes a log of this very process (a process that lost its session, or its memory of having taken the
// log, takes it again), and a free one, of nobody or of a process that is not registered, unless `may_take` (empty:
// always) refuses it. NO_OWNER if it does, or, naming the other's address, if a registered process has the log;
// NOT_FOUND if the log is deleted or absent; ZOOKEEPER_UNAVAILABLE if the outcome is not known: to be called again.
Task<absl::StatusOr<OwnerView>> TakeOwnership(zk::Client& client, const Layout& layout, Uid log, ProcessId process,
                                              std::string address,
                                              std::function<bool(const OwnerView& free)> may_take = {});

// The operation that gives the log back, for the last write of its owner.
zk::Op LetGoOp(const Layout& layout, const Uid& log, const OwnerView& held);
// The operation that ends the log.
zk::Op MarkDeletedOp(const Layout& layout, const Uid& log, const OwnerView& held);
// The data of the record of a new log.
std::string NobodysOwnerRecord();

// The error for a reply of ZooKeeper that the caller has no better words for.
absl::Status UnavailableError(const zk::Response& response, std::string_view what);

}  // namespace postkeeper

#endif  // POSTKEEPER_ZKSTORE_OWNER_H_
