// What the client of a Consume stream holds, and the credit that is left to it.
#ifndef POSTKEEPER_SERVICE_HELD_LEASES_H_
#define POSTKEEPER_SERVICE_HELD_LEASES_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/status/statusor.h"
#include "service/queue_engine.h"
#include "service/validate.h"

namespace postkeeper {

// Kept by the replica that the client is connected to, from what it passes on, so that it can tell the next owner.
// Extensions and settlements by other ways than the stream are not seen here; the owner then finds that a lease which
// is announced to it has ended, or lapses early.
//
// Bounded: of more than kHeldLeasesMax, which manual credit allows, those that are being settled are forgotten, then
// those that were given first; they are not announced. Not thread-safe. O(log n) for each lease.
class HeldLeases {
 public:
  // `open` gives the credit that is left beside what is held, and `keeps_leases`, which lets no lease lapse.
  HeldLeases(const CheckedOpen& open, const std::vector<HeldLease>& held, Instant now);

  void Add(const HeldLease& lease, Instant now);
  // An ack, nack or release of it is on its way.
  void OnSettling(const LeaseToken& token);
  // Acked, nacked or released: it was this giving-out or none.
  void Remove(const LeaseToken& token);
  void Extend(const LeaseToken& token, Duration lease, Instant now);

  // INVALID_FIELD if that is too much.
  absl::Status AddCredit(const CheckedCredit& credit, Instant now);
  // What the owner may still send; bytes may be below zero.
  CheckedCredit CreditLeft(Instant now);

  // What has not lapsed, by position.
  std::vector<HeldLease> Held(Instant now);
  std::size_t size() const { return held_.size(); }

 private:
  struct Lease {
    HeldLease given;
    Instant deadline{};
    std::int64_t order = 0;  // of delivery; below 0: it is being settled
  };

  using Leases = absl::btree_map<Position, Lease>;

  void DropLapsed(Instant now);
  Leases::iterator Drop(Leases::iterator lease);

  const bool is_credit_manual_;
  const bool keeps_leases_;
  CheckedCredit granted_;  // automatic: in all; manual: less what was delivered
  CheckedCredit in_use_;   // by what is held
  Leases held_;
  absl::btree_map<std::int64_t, Position> by_order_;
  std::int64_t first_order_ = 0;
  std::int64_t last_order_ = 0;
  Instant first_lapse_ = Instant::max();  // none lapses before
};

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_HELD_LEASES_H_
