// How many logs each replica owns, as all owner records say.
#ifndef POSTKEEPER_ZKSTORE_OWNER_CENSUS_H_
#define POSTKEEPER_ZKSTORE_OWNER_CENSUS_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "zkstore/client.h"
#include "zkstore/layout.h"
#include "zkstore/signal.h"

namespace postkeeper {

// For people who look at the cluster; nothing is decided by it.
//
// How it works. A count reads the owner record of every log, kReadsAtATime at a time. Calls that come while it goes on
// wait for it, and its result (or error) is given again for kRestFactor times as long as it took, at least kRestMin: so
// counting never takes more than a small part of the time, however many logs there are and however often it is asked
// for. Logs change hands while they are counted, so the sum may be off by some. A log that is deleted, of nobody, or
// whose record cannot be read counts for nobody; past kLogsMax they are not counted.
//
// Thread-safe; works on a strand of its own. Held by shared_ptr; a call keeps it alive. The environment and the client
// outlive it. Errors: ZOOKEEPER_UNAVAILABLE.
class OwnerCensus : public std::enable_shared_from_this<OwnerCensus> {
 public:
  static constexpr std::size_t kLogsMax = 100'000;
  static constexpr int kReadsAtATime = 32;
  static constexpr int kRestFactor = 20;
  static constexpr Duration kRestMin = std::chrono::milliseconds(500);

  using Counts = absl::flat_hash_map<ProcessId, std::int64_t>;  // who owns none is not in it

  OwnerCensus(Environment& environment, zk::Client& client, const Layout& layout);

  Task<absl::StatusOr<std::shared_ptr<const Counts>>> Take();

 private:
  // One count, from its beginning to its end.
  struct Round;

  Task<absl::StatusOr<std::shared_ptr<const Counts>>> TakeOnStrand(std::shared_ptr<OwnerCensus> self);
  Task<absl::StatusOr<std::shared_ptr<const Counts>>> Count();
  Task<void> ReadOwners(std::shared_ptr<OwnerCensus> self, std::shared_ptr<Round> round);

  Environment& environment_;
  zk::Client& client_;
  const Layout layout_;
  const asio::any_io_executor strand_;

  // Touched only on the strand.
  bool is_counting_ = false;
  Signal counted_;
  absl::StatusOr<std::shared_ptr<const Counts>> latest_;
  Instant rests_until_ = Instant::min();
};

}  // namespace postkeeper

#endif  // POSTKEEPER_ZKSTORE_OWNER_CENSUS_H_
