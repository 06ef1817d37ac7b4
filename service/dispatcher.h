// Decides who gets which message, and when: the pure heart of a queue.
#ifndef POSTKEEPER_SERVICE_DISPATCHER_H_
#define POSTKEEPER_SERVICE_DISPATCHER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "zkstore/environment.h"
#include "zkstore/position.h"

namespace postkeeper {

// How long a message waits after its n-th failed attempt: first * 2^(n-1), at most max.
struct Backoff {
  Duration first = std::chrono::seconds(1);
  Duration max = std::chrono::minutes(10);

  // `attempt` >= 1.
  Duration After(std::int32_t attempt) const;
};

// Holds, for every unsettled message of one source that the owner has read, where it stands, its size, its state
// (ready, delayed or leased), and how often it was given out. Bodies are held elsewhere.
//
//          Add(due later)                    Nack with delay
//       ------------------> [delayed] <----------------------+
//                              | due                          |
//          Add                 v            Take              |       Settle
//       ------------------> [ready] -----------------------> [leased] ------> gone
//                              ^                              |
//                              +------- Nack, lease lapses ---+
//
// What: ready messages are given out in the order of their positions, so first attempts follow the log. A message has
// at most one live lease. Every giving-out gets the next delivery number, released or not; the number is part of the
// lease token, so a token names one giving-out. `attempts` counts the deliveries that were not released.
//
// Settling: Settle, Nack, Release and Extend name a giving-out. Only the latest one counts: number 0, an older number
// and one not yet given answer kStaleLease; a message that is not here answers kAlreadySettled. What the latest one may
// still do depends on what has become of its lease, as long as the message has not been given out again:
//
//   its lease      Settle   Nack                       Release                   Extend
//   live           gone     delayed or ready; counts   the same; does not count  deadline moves
//   lapsed         gone     delayed or ready; counts   the same; does not count  live again, same holder
//   nacked or      gone     kOk, nothing changes       kOk, nothing changes      kStaleLease
//   released                (the first due time)       (never uncounted twice)
//
// So the last holder's late ack counts until somebody else has the message, and a repeated Nack or Release is harmless.
//
// A change of owner: a message whose cursor has a number (Message::number > 0) counts as lapsed, or as nacked if it is
// still to wait; lease_max then counts from Add. Delivery numbers start again with each owner where the cursor has
// none, so a token of an earlier owner may be passed on only while NotesOf says that the message was not given out
// here; Adopt makes a lease of it.
//
// A pure state machine: no I/O, no clock of its own, no randomness. The same calls give the same answers. Time passes
// only through `now`, which must not go back (one that does is taken as the latest known). Durations below zero are
// taken as zero, and times beyond the end of Instant as its end. Not thread-safe.
//
// Costs: Add, Take, Settle, Nack, Release and Extend are O(log n) at worst per message; messages that are added, given
// out and settled in log order cost some 0.2 us in all. What names a holder costs in proportion to its leases;
// NextEvent, counts and OldestEnqueued are constant. A message takes some 90 bytes, up to 30 more while it is delayed
// or has come back, and its last reason if there is one.
class Dispatcher {
 public:
  enum class Outcome {
    kOk,
    kAlreadySettled,  // there is no such message: it was settled, or never was (the caller knows which)
    kStaleLease,      // not the latest giving-out, or (Extend) one that was nacked or released
    kLeaseLimit,      // Extend would hold it for more than lease_max after its delivery
  };

  struct Options {
    Backoff backoff;
    Duration lease_max = std::chrono::hours(12);  // counted from the delivery, all extensions included
  };

  // What is known of a message when it is read from the log.
  struct Message {
    Position position;
    std::int32_t bytes = 0;
    Instant enqueued{};          // for ages; in the past
    std::optional<Instant> due;  // unset or past = ready at once
    std::uint32_t number = 0;    // deliveries so far, from the cursor; the next one is number + 1
    std::int32_t attempts = 0;   // those that count
    std::string last_reason;     // of the latest Nack, or empty
  };

  // One giving-out.
  struct Grant {
    Position position;
    std::int32_t bytes = 0;
    std::uint32_t number = 0;  // from 1. >= 2: must be durable in the cursor before the message is sent
    std::int32_t attempt = 0;  // from 1, this one included
    Instant enqueued{};
    Instant deadline{};
    std::string last_reason;  // of the latest Nack, or "lease lapsed"
  };

  // What a consumer wants. A holder is the consumer's mark (a stream, a call), used by LeasesOf and ReleaseAll.
  struct Demand {
    std::int64_t messages_max = 1;
    std::int64_t bytes_max = 3 << 20;  // the first message always fits
    Duration lease{};                  // at most lease_max is given
    std::uint64_t holder = 0;
  };

  struct Counts {
    std::int64_t ready = 0;
    std::int64_t delayed = 0;
    std::int64_t leased = 0;
    std::int64_t bytes = 0;  // of all of them
    std::int64_t total() const { return ready + delayed + leased; }
  };

  explicit Dispatcher(Options options);
  ~Dispatcher();
  Dispatcher(const Dispatcher&) = delete;
  Dispatcher& operator=(const Dispatcher&) = delete;

  // Takes effect for what happens from now on.
  void SetBackoff(Backoff backoff);

  // Messages may come in any order of positions; usually they rise. Adding a position that is here is a bug of the
  // caller and ends the process.
  void Add(const Message& message, Instant now);

  // Lets `now` be: leases whose deadline is at or before it lapse (by deadline, then position), delayed messages that
  // are due become ready. Every other call that takes `now` does this first. Returns how many leases lapsed.
  int Advance(Instant now);

  // Gives out ready messages, lowest position first, until a bound of the demand is reached. No message is passed over
  // because it is too large for what is left.
  std::vector<Grant> Take(const Demand& demand, Instant now);

  // Each of these names one giving-out by position and number; the table above says what it does.
  // The message is gone when Settle returns kOk.
  Outcome Settle(Position position, std::uint32_t number, Instant now);
  // The same question without the change: what Settle would answer.
  Outcome CanSettle(Position position, std::uint32_t number, Instant now);
  // Failed: ready again after `delay`, or after the backoff if unset. `reason` is kept in place of an earlier one, also
  // if empty; the caller bounds its length. Returns the due time through `due` (if not null) when the outcome is kOk.
  Outcome Nack(Position position, std::uint32_t number, std::optional<Duration> delay, std::string_view reason,
               Instant now, Instant* due = nullptr);
  // Not tried: ready again after `delay`; the attempt does not count. The delivery number does. A `reason` is kept in
  // place of an earlier one unless it is empty; the caller bounds its length.
  Outcome Release(Position position, std::uint32_t number, Instant now, Duration delay = Duration::zero(),
                  std::string_view reason = {});
  // The deadline becomes now + lease, or nothing changes if that is more than lease_max after the delivery.
  Outcome Extend(Position position, std::uint32_t number, Duration lease, Instant now);

  // The same for a lease whose holder is another one from now on, and which is never refused: it lasts for at most
  // lease_max after the delivery.
  Outcome Rebind(Position position, std::uint32_t number, Duration lease, std::uint64_t holder, Instant now);

  // Removes every ready and delayed message, or all (`leased_too`); returns the positions, rising. Nothing lapses by
  // it.
  std::vector<Position> Purge(bool leased_too, Instant now);

  // A grant that could not be made durable or sent: as if it had not been given out, except that its number is used.
  // Same as Release; kept apart because it may be called for a grant nobody has seen.
  void TakeBack(const Grant& grant, Instant now);

  // A lease given by an earlier owner becomes live here: one that was handed over or announced again, or one whose
  // token was found to count. `number` may be higher than the cursor's, which need not know of first deliveries; those
  // in between count as attempts, and lease_max counts from now. kStaleLease if it has been given out here, if a later
  // delivery is known, or if it was nacked.
  Outcome Adopt(Position position, std::uint32_t number, Duration lease, std::uint64_t holder, Instant now);

  // Every live lease of a holder, by position. Leases whose deadline has passed since the last `now` are still in it.
  std::vector<Grant> LeasesOf(std::uint64_t holder) const;
  // At most `leases_max` live leases of all holders, those that last longest first: for handing them over to the next
  // owner. Walks the delayed messages too.
  std::vector<Grant> Leases(std::int64_t leases_max) const;
  // Releases all of a holder's leases; returns how many.
  int ReleaseAll(std::uint64_t holder, Instant now);
  // Extends all of a holder's leases to now + lease, but none past lease_max. Never shortens one.
  void ExtendAll(std::uint64_t holder, Duration lease, Instant now);
  // Called for each lease that lapses inside any call, before that call returns. Must not call a member that is not
  // const.
  void SetLapseObserver(std::function<void(Position, std::uint32_t number, std::uint64_t holder)> observer);

  // When Advance must be called next for something to happen; nullopt = not before another call.
  std::optional<Instant> NextEvent() const;

  Counts counts() const;
  // When the oldest unsettled message (by position) was enqueued.
  std::optional<Instant> OldestEnqueued() const;
  bool Contains(Position position) const;
  // Message::enqueued of an unsettled message.
  std::optional<Instant> EnqueuedAt(Position position) const;
  // What the cursor must say about an unsettled message.
  struct Notes {
    std::uint32_t number = 0;
    std::int32_t attempts = 0;
    std::optional<Instant> due;  // set while it is delayed
    bool was_given_out = false;  // by this dispatcher, whether or not it came back
  };
  std::optional<Notes> NotesOf(Position position) const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_DISPATCHER_H_
