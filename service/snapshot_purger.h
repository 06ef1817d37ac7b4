// Removes the files that a ZooKeeper no longer needs.
#ifndef POSTKEEPER_SERVICE_SNAPSHOT_PURGER_H_
#define POSTKEEPER_SERVICE_SNAPSHOT_PURGER_H_

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/statusor.h"

namespace postkeeper {

// Keeps the disk use of the embedded ZooKeeper bounded.
//
// Why: ZooKeeper writes all it stores into transaction logs (log.<zxid of the first transaction>) and now and then its
// whole state into a snapshot (snapshot.<last zxid before it began>), and removes neither. Its own purging runs at most
// once an hour, and at 50 MB/s an hour is 180 GB.
//
// The rule: the newest `kept` sound snapshots stay, and so does all that is needed to bring the oldest of them up to
// date: every log that begins after it, and the last log that begins at or before it. The rest goes. ZooKeeper starts
// by reading the newest snapshot that it finds intact, X, and then, from the log that holds X+1 on, every log; that log
// is the last one to begin at or before X+1. So every kept snapshot can be recovered from. A snapshot's contents may
// run ahead of its name, since writes go on while it is written; that is made up for by replaying from the name on. The
// log being written is the newest of all and always stays. A snapshot being written is newer than the oldest kept one.
//
// Sound means: its checksum is right, and it is on the disk. ZooKeeper does not sync snapshots. A power failure can
// therefore take the newest ones that look complete, and if the older ones and the logs before them were gone by then,
// everything with them. That is harmless with an hour between two purges, not with seconds. So each snapshot is synced
// and its checksum computed, once, before anything older is removed. For the same reason ZooKeeper's own purging, which
// does neither, is to be off.
//
// After a crash in the middle of Purge there may be logs left over, which the next call removes; snapshots go first,
// and durably, since one whose logs were gone would be a trap.
//
// Not thread-safe. Errors: what the file system says; then nothing needed was removed.
class SnapshotPurger {
 public:
  // Two besides the newest: one that turns out damaged must not be the last.
  static constexpr int kKept = 3;

  struct Removed {
    int snapshots = 0;
    int logs = 0;
    std::int64_t bytes = 0;
  };

  // `directory` is ZooKeeper's version-2, snapshots and logs together.
  explicit SnapshotPurger(std::string directory, int kept = kKept);

  absl::StatusOr<Removed> Purge();

 private:
  // Changes whenever a file is written to.
  struct Stamp {
    std::uint64_t inode = 0;
    std::int64_t size = 0;
    std::int64_t modified_ns = 0;
    friend bool operator==(const Stamp&, const Stamp&) = default;
  };
  using Files = std::map<std::uint64_t, std::string>;  // by zxid

  absl::StatusOr<bool> IsSound(const std::string& name);
  absl::Status Remove(const std::string& name, int* count, Removed* removed) const;

  std::string directory_;
  int kept_;
  std::map<std::string, Stamp> sound_;  // what was found sound, as it was then
};

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_SNAPSHOT_PURGER_H_
