#include "service/dispatcher.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <utility>

#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "service/dispatcher_entry.h"
#include "service/slab.h"
#include "zkstore/mutation.h"

namespace postkeeper {
namespace {

// start + wait, without overflow and never before start.
Instant Later(Instant start, Duration wait) {
  if (wait <= Duration::zero()) return start;
  if (start > Instant{} && wait > Instant::max() - start) return Instant::max();
  return start + wait;
}

using dispatching::Entry;
using dispatching::List;

}  // namespace

Duration Backoff::After(std::int32_t attempt) const {
  Duration wait = std::max(Duration::zero(), std::min(first, max));
  for (std::int32_t n = 1; n < attempt && wait > Duration::zero() && wait < max; ++n) {
    wait = wait > max / 2 ? max : wait * 2;
  }
  return wait;
}

// Each message is in index_, and according to its state in one of in_order_, apart_ and alarms_. Every change of state
// is a Withdraw from where it stands followed by one of MakeReady, MakeDelayed and MakeLeased, so that only these four
// know the containers and the counts.
class Dispatcher::Impl {
 public:
  explicit Impl(Options options) : options_(options) {}

  void SetBackoff(Backoff backoff) { options_.backoff = backoff; }
  void SetLapseObserver(std::function<void(Position, std::uint32_t, std::uint64_t)> observer) {
    lapse_observer_ = std::move(observer);
  }

  void Add(const Message& message, Instant now);
  int Advance(Instant now);
  std::vector<Grant> Take(const Demand& demand, Instant now);
  Outcome Settle(Position position, std::uint32_t number, Instant now);
  Outcome CanSettle(Position position, std::uint32_t number, Instant now);
  Outcome Nack(Position position, std::uint32_t number, std::optional<Duration> delay, std::string_view reason,
               Instant now, Instant* due);
  Outcome Release(Position position, std::uint32_t number, Instant now, Duration delay, std::string_view reason);
  Outcome Extend(Position position, std::uint32_t number, Duration lease, Instant now);
  Outcome Rebind(Position position, std::uint32_t number, Duration lease, std::uint64_t holder, Instant now);
  Outcome Adopt(Position position, std::uint32_t number, Duration lease, std::uint64_t holder, Instant now);
  std::vector<Position> Purge(bool leased_too, Instant now);

  std::vector<Grant> LeasesOf(std::uint64_t holder) const;
  std::vector<Grant> Leases(std::int64_t leases_max) const;
  int ReleaseAll(std::uint64_t holder, Instant now);
  void ExtendAll(std::uint64_t holder, Duration lease, Instant now);

  std::optional<Instant> NextEvent() const;
  Counts counts() const { return counts_; }
  std::optional<Instant> OldestEnqueued() const;
  bool Contains(Position position) const { return index_.contains(position); }
  std::optional<Instant> EnqueuedAt(Position position) const;
  std::optional<Notes> NotesOf(Position position) const;

 private:
  using Reference = Entry::Reference;
  using State = Entry::State;
  using Reason = Entry::Reason;
  using Index = absl::btree_map<Position, Reference>;
  static constexpr Reference kNone = Entry::kNone;

  // The message of which this is the latest giving-out. `found` is set if and only if the answer is kOk.
  Outcome Find(Position position, std::uint32_t number, Index::iterator* found);
  // The ready message with the lowest position, or kNone.
  Reference FirstReady() const;
  Grant GrantOf(Reference reference) const;
  std::vector<Reference> LeaseReferencesOf(std::uint64_t holder) const;

  void Withdraw(Reference reference);
  void MakeReady(Reference reference);
  void MakeDelayed(Reference reference, Instant due);
  void MakeReadyAt(Reference reference, Instant ready_at);
  void MakeLeased(Reference reference, Instant deadline, std::uint64_t holder);

  void Lapse(Reference reference);
  void GiveBack(Reference reference, Duration delay);
  void SetReason(Reference reference, Reason reason, std::string_view text);
  Index::iterator Remove(Index::iterator at);

  Options options_;
  std::function<void(Position, std::uint32_t, std::uint64_t)> lapse_observer_;
  Instant now_ = Instant::min();  // the latest known

  Slab<Entry> entries_;
  // A tree and not a hash: neighbours in the log are neighbours in it, so work in log order stays in the cache however
  // deep the backlog is; and the oldest message is at hand.
  Index index_;
  List in_order_;  // ready, of rising positions: nearly all that are added
  Index apart_;    // ready, but came when in_order_ already ended behind them: nearly all that came back
  // Leases that lapse and messages that become due, by time. All leases of one Take share a list.
  absl::btree_map<Instant, List> alarms_;
  absl::flat_hash_map<std::uint64_t, List> holders_;  // live leases
  absl::btree_map<Position, std::string> reasons_;
  Counts counts_;
};

void Dispatcher::Impl::Withdraw(Reference reference) {
  const Entry& entry = entries_[reference];
  switch (entry.state) {
    case State::kReadyInOrder:
      in_order_.Remove<&Entry::queue>(entries_, reference);
      --counts_.ready;
      return;
    case State::kReadyApart:
      apart_.erase(entry.position);
      --counts_.ready;
      return;
    case State::kDelayed:
    case State::kLeased:
      break;
  }
  const auto alarm = alarms_.find(entry.time);
  alarm->second.Remove<&Entry::queue>(entries_, reference);
  if (alarm->second.empty()) alarms_.erase(alarm);
  if (entry.state == State::kDelayed) {
    --counts_.delayed;
    return;
  }
  const auto holder = holders_.find(entry.holder);
  holder->second.Remove<&Entry::siblings>(entries_, reference);
  if (holder->second.empty()) holders_.erase(holder);
  --counts_.leased;
}

void Dispatcher::Impl::MakeReady(Reference reference) {
  Entry& entry = entries_[reference];
  if (in_order_.empty() || entries_[in_order_.last].position < entry.position) {
    entry.state = State::kReadyInOrder;
    in_order_.Append<&Entry::queue>(entries_, reference);
  } else {
    entry.state = State::kReadyApart;
    apart_.emplace(entry.position, reference);
  }
  ++counts_.ready;
}

void Dispatcher::Impl::MakeDelayed(Reference reference, Instant due) {
  Entry& entry = entries_[reference];
  entry.state = State::kDelayed;
  entry.time = due;
  alarms_[due].Append<&Entry::queue>(entries_, reference);
  ++counts_.delayed;
}

// From whatever state it is in.
void Dispatcher::Impl::MakeReadyAt(Reference reference, Instant ready_at) {
  Withdraw(reference);
  if (ready_at > now_) {
    MakeDelayed(reference, ready_at);
  } else {
    MakeReady(reference);
  }
  entries_[reference].time = ready_at;
}

void Dispatcher::Impl::MakeLeased(Reference reference, Instant deadline, std::uint64_t holder) {
  Entry& entry = entries_[reference];
  entry.state = State::kLeased;
  entry.time = deadline;
  entry.holder = holder;
  alarms_[deadline].Append<&Entry::queue>(entries_, reference);
  holders_[holder].Append<&Entry::siblings>(entries_, reference);
  ++counts_.leased;
}

void Dispatcher::Impl::Lapse(Reference reference) {
  Withdraw(reference);
  MakeReady(reference);
  SetReason(reference, Reason::kLeaseLapsed, {});
  if (lapse_observer_) {
    const Entry& entry = entries_[reference];
    lapse_observer_(entry.position, entry.number, entry.holder);
  }
}

// The latest giving-out does not count, and the message is ready after `delay`.
void Dispatcher::Impl::GiveBack(Reference reference, Duration delay) {
  Entry& entry = entries_[reference];
  MakeReadyAt(reference, Later(now_, delay));
  entry.attempts = std::max(0, entry.attempts - 1);
  entry.is_given_up = true;
}

void Dispatcher::Impl::SetReason(Reference reference, Reason reason, std::string_view text) {
  Entry& entry = entries_[reference];
  if (reason == Reason::kText && text.empty()) reason = Reason::kNone;
  if (reason == Reason::kText) {
    reasons_[entry.position] = std::string(text);
  } else if (entry.reason == Reason::kText) {
    reasons_.erase(entry.position);
  }
  entry.reason = reason;
}

Dispatcher::Impl::Index::iterator Dispatcher::Impl::Remove(Index::iterator at) {
  const Reference reference = at->second;
  Withdraw(reference);
  SetReason(reference, Reason::kNone, {});
  counts_.bytes -= entries_[reference].bytes;
  entries_.Free(reference);
  return index_.erase(at);
}

void Dispatcher::Impl::Add(const Message& message, Instant now) {
  Advance(now);
  const Reference reference = entries_.New();
  const std::size_t size_before = index_.size();
  index_.emplace_hint(index_.end(), message.position, reference);
  if (index_.size() == size_before) {
    std::fprintf(stderr, "bug: message %s was added twice to a dispatcher\n", message.position.DebugString().c_str());
    std::abort();
  }
  Entry& entry = entries_[reference];
  entry.position = message.position;
  entry.enqueued = message.enqueued;
  entry.time = now_;
  entry.delivered = now_;
  entry.bytes = message.bytes;
  entry.number = message.number;
  entry.attempts = message.attempts;
  counts_.bytes += message.bytes;
  SetReason(reference, Reason::kText, message.last_reason);
  if (message.due.has_value() && *message.due > now_) {
    // A message that waits although it has been given out was nacked.
    entry.is_given_up = message.number > 0;
    MakeDelayed(reference, *message.due);
  } else {
    MakeReady(reference);
  }
}

int Dispatcher::Impl::Advance(Instant now) {
  now_ = std::max(now_, now);
  int lapsed = 0;
  while (!alarms_.empty() && alarms_.begin()->first <= now_) {
    for (const Reference reference : alarms_.begin()->second.ByPosition<&Entry::queue>(entries_)) {
      if (entries_[reference].state == State::kLeased) {
        Lapse(reference);
        ++lapsed;
      } else {
        Withdraw(reference);
        MakeReady(reference);
      }
    }
  }
  return lapsed;
}

Entry::Reference Dispatcher::Impl::FirstReady() const {
  if (apart_.empty()) return in_order_.first;
  const auto& [position, reference] = *apart_.begin();
  if (in_order_.empty() || position < entries_[in_order_.first].position) return reference;
  return in_order_.first;
}

Dispatcher::Grant Dispatcher::Impl::GrantOf(Reference reference) const {
  const Entry& entry = entries_[reference];
  Grant grant{.position = entry.position,
              .bytes = entry.bytes,
              .number = entry.number,
              .attempt = entry.attempts,
              .enqueued = entry.enqueued,
              .deadline = entry.time};
  if (entry.reason == Reason::kLeaseLapsed) grant.last_reason = "lease lapsed";
  if (entry.reason == Reason::kText) grant.last_reason = reasons_.at(entry.position);
  return grant;
}

std::vector<Dispatcher::Grant> Dispatcher::Impl::Take(const Demand& demand, Instant now) {
  // What a Take of usual size needs; a greater demand need not be backed by as many messages.
  constexpr std::int64_t kReserveMax = 1'000;
  Advance(now);
  const Instant deadline = Later(now_, std::min(demand.lease, options_.lease_max));
  std::vector<Grant> grants;
  grants.reserve(std::clamp<std::int64_t>(demand.messages_max, 0, std::min(counts_.ready, kReserveMax)));
  std::int64_t bytes = 0;
  while (std::cmp_less(grants.size(), demand.messages_max)) {
    const Reference reference = FirstReady();
    if (reference == kNone) break;
    Entry& entry = entries_[reference];
    bytes += entry.bytes;
    if (bytes > demand.bytes_max && !grants.empty()) break;
    Withdraw(reference);
    // Nobody gets to the end of these numbers honestly. A message that does is stuck with its last one, and not lost.
    if (entry.number < std::numeric_limits<std::uint32_t>::max()) ++entry.number;
    if (entry.attempts < std::numeric_limits<std::int32_t>::max()) ++entry.attempts;
    entry.delivered = now_;
    entry.is_given_up = false;
    entry.was_given_out = true;
    if (IsMutated(Mutation::kGiveTwice) && entry.number == 1) {
      MakeDelayed(reference, Later(now_, std::chrono::milliseconds(1)));
    } else {
      MakeLeased(reference, deadline, demand.holder);
    }
    grants.push_back(GrantOf(reference));
  }
  return grants;
}

Dispatcher::Outcome Dispatcher::Impl::Find(Position position, std::uint32_t number, Index::iterator* found) {
  const auto at = index_.find(position);
  if (at == index_.end()) return Outcome::kAlreadySettled;
  const bool is_latest = number == entries_[at->second].number || IsMutated(Mutation::kAcceptStaleToken);
  if (number == 0 || !is_latest) return Outcome::kStaleLease;
  *found = at;
  return Outcome::kOk;
}

Dispatcher::Outcome Dispatcher::Impl::Settle(Position position, std::uint32_t number, Instant now) {
  Advance(now);
  Index::iterator found;
  const Outcome outcome = Find(position, number, &found);
  if (outcome == Outcome::kOk) Remove(found);
  return outcome;
}

Dispatcher::Outcome Dispatcher::Impl::CanSettle(Position position, std::uint32_t number, Instant now) {
  Advance(now);
  Index::iterator found;
  return Find(position, number, &found);
}

Dispatcher::Outcome Dispatcher::Impl::Nack(Position position, std::uint32_t number, std::optional<Duration> delay,
                                           std::string_view reason, Instant now, Instant* due) {
  Advance(now);
  Index::iterator found;
  if (const Outcome outcome = Find(position, number, &found); outcome != Outcome::kOk) return outcome;
  const Reference reference = found->second;
  Entry& entry = entries_[reference];
  if (!entry.is_given_up) {
    MakeReadyAt(reference, Later(now_, delay.has_value() ? *delay : options_.backoff.After(entry.attempts)));
    entry.is_given_up = true;
    SetReason(reference, Reason::kText, reason);
  }
  if (due != nullptr) *due = entry.time;
  return Outcome::kOk;
}

Dispatcher::Outcome Dispatcher::Impl::Release(Position position, std::uint32_t number, Instant now, Duration delay,
                                              std::string_view reason) {
  Advance(now);
  Index::iterator found;
  if (const Outcome outcome = Find(position, number, &found); outcome != Outcome::kOk) return outcome;
  if (entries_[found->second].is_given_up) return Outcome::kOk;
  GiveBack(found->second, delay);
  if (!reason.empty()) SetReason(found->second, Reason::kText, reason);
  return Outcome::kOk;
}

Dispatcher::Outcome Dispatcher::Impl::Extend(Position position, std::uint32_t number, Duration lease, Instant now) {
  Advance(now);
  Index::iterator found;
  if (const Outcome outcome = Find(position, number, &found); outcome != Outcome::kOk) return outcome;
  const Reference reference = found->second;
  const Entry& entry = entries_[reference];
  if (entry.is_given_up) return Outcome::kStaleLease;
  const Instant deadline = Later(now_, lease);
  if (deadline > Later(entry.delivered, options_.lease_max)) return Outcome::kLeaseLimit;
  Withdraw(reference);
  MakeLeased(reference, deadline, entry.holder);
  return Outcome::kOk;
}

Dispatcher::Outcome Dispatcher::Impl::Rebind(Position position, std::uint32_t number, Duration lease,
                                             std::uint64_t holder, Instant now) {
  Advance(now);
  Index::iterator found;
  if (const Outcome outcome = Find(position, number, &found); outcome != Outcome::kOk) return outcome;
  const Reference reference = found->second;
  if (entries_[reference].is_given_up) return Outcome::kStaleLease;
  const Instant last = Later(entries_[reference].delivered, options_.lease_max);
  Withdraw(reference);
  MakeLeased(reference, std::min(Later(now_, lease), last), holder);
  return Outcome::kOk;
}

Dispatcher::Outcome Dispatcher::Impl::Adopt(Position position, std::uint32_t number, Duration lease,
                                            std::uint64_t holder, Instant now) {
  Advance(now);
  const auto found = index_.find(position);
  if (found == index_.end()) return Outcome::kAlreadySettled;
  Entry& entry = entries_[found->second];
  const bool is_known_as_nacked = entry.is_given_up && number == entry.number;
  if (number == 0 || number < entry.number || entry.was_given_out || is_known_as_nacked) return Outcome::kStaleLease;
  const std::int64_t attempts = std::int64_t{entry.attempts} + (number - entry.number);
  Withdraw(found->second);
  entry.attempts =
      static_cast<std::int32_t>(std::min<std::int64_t>(attempts, std::numeric_limits<std::int32_t>::max()));
  entry.number = number;
  entry.delivered = now_;
  entry.is_given_up = false;
  MakeLeased(found->second, Later(now_, std::min(lease, options_.lease_max)), holder);
  return Outcome::kOk;
}

std::vector<Position> Dispatcher::Impl::Purge(bool leased_too, Instant now) {
  Advance(now);
  std::vector<Position> purged;
  for (auto at = index_.begin(); at != index_.end();) {
    if (entries_[at->second].state == State::kLeased && !leased_too) {
      ++at;
    } else {
      purged.push_back(at->first);
      at = Remove(at);
    }
  }
  return purged;
}

std::vector<Entry::Reference> Dispatcher::Impl::LeaseReferencesOf(std::uint64_t holder) const {
  const auto found = holders_.find(holder);
  if (found == holders_.end()) return {};
  return found->second.ByPosition<&Entry::siblings>(entries_);
}

std::vector<Dispatcher::Grant> Dispatcher::Impl::LeasesOf(std::uint64_t holder) const {
  std::vector<Grant> leases;
  for (const Reference reference : LeaseReferencesOf(holder)) leases.push_back(GrantOf(reference));
  return leases;
}

std::vector<Dispatcher::Grant> Dispatcher::Impl::Leases(std::int64_t leases_max) const {
  std::vector<Grant> leases;
  for (auto alarm = alarms_.rbegin(); alarm != alarms_.rend(); ++alarm) {
    for (const Reference reference : alarm->second.ByPosition<&Entry::queue>(entries_)) {
      if (std::cmp_greater_equal(leases.size(), leases_max)) return leases;
      if (entries_[reference].state == State::kLeased) leases.push_back(GrantOf(reference));
    }
  }
  return leases;
}

int Dispatcher::Impl::ReleaseAll(std::uint64_t holder, Instant now) {
  Advance(now);
  const std::vector<Reference> leases = LeaseReferencesOf(holder);
  for (const Reference reference : leases) GiveBack(reference, Duration::zero());
  return static_cast<int>(leases.size());
}

void Dispatcher::Impl::ExtendAll(std::uint64_t holder, Duration lease, Instant now) {
  Advance(now);
  for (const Reference reference : LeaseReferencesOf(holder)) {
    const Entry& entry = entries_[reference];
    const Instant deadline = std::min(Later(now_, lease), Later(entry.delivered, options_.lease_max));
    if (deadline <= entry.time) continue;
    Withdraw(reference);
    MakeLeased(reference, deadline, holder);
  }
}

std::optional<Instant> Dispatcher::Impl::NextEvent() const {
  if (alarms_.empty()) return std::nullopt;
  return alarms_.begin()->first;
}

std::optional<Instant> Dispatcher::Impl::OldestEnqueued() const {
  if (index_.empty()) return std::nullopt;
  return entries_[index_.begin()->second].enqueued;
}

std::optional<Instant> Dispatcher::Impl::EnqueuedAt(Position position) const {
  const auto found = index_.find(position);
  if (found == index_.end()) return std::nullopt;
  return entries_[found->second].enqueued;
}

std::optional<Dispatcher::Notes> Dispatcher::Impl::NotesOf(Position position) const {
  const auto found = index_.find(position);
  if (found == index_.end()) return std::nullopt;
  const Entry& entry = entries_[found->second];
  Notes notes{.number = entry.number, .attempts = entry.attempts, .was_given_out = entry.was_given_out};
  if (entry.state == State::kDelayed) notes.due = entry.time;
  return notes;
}

Dispatcher::Dispatcher(Options options) : impl_(std::make_unique<Impl>(options)) {}
Dispatcher::~Dispatcher() = default;

void Dispatcher::SetBackoff(Backoff backoff) { impl_->SetBackoff(backoff); }
void Dispatcher::Add(const Message& message, Instant now) { impl_->Add(message, now); }
int Dispatcher::Advance(Instant now) { return impl_->Advance(now); }
std::vector<Dispatcher::Grant> Dispatcher::Take(const Demand& demand, Instant now) { return impl_->Take(demand, now); }
Dispatcher::Outcome Dispatcher::Settle(Position position, std::uint32_t number, Instant now) {
  return impl_->Settle(position, number, now);
}
Dispatcher::Outcome Dispatcher::CanSettle(Position position, std::uint32_t number, Instant now) {
  return impl_->CanSettle(position, number, now);
}
Dispatcher::Outcome Dispatcher::Nack(Position position, std::uint32_t number, std::optional<Duration> delay,
                                     std::string_view reason, Instant now, Instant* due) {
  return impl_->Nack(position, number, delay, reason, now, due);
}
Dispatcher::Outcome Dispatcher::Release(Position position, std::uint32_t number, Instant now, Duration delay,
                                        std::string_view reason) {
  return impl_->Release(position, number, now, delay, reason);
}
Dispatcher::Outcome Dispatcher::Extend(Position position, std::uint32_t number, Duration lease, Instant now) {
  return impl_->Extend(position, number, lease, now);
}
std::vector<Position> Dispatcher::Purge(bool leased_too, Instant now) { return impl_->Purge(leased_too, now); }
void Dispatcher::TakeBack(const Grant& grant, Instant now) {
  impl_->Release(grant.position, grant.number, now, Duration::zero(), {});
}
Dispatcher::Outcome Dispatcher::Rebind(Position position, std::uint32_t number, Duration lease, std::uint64_t holder,
                                       Instant now) {
  return impl_->Rebind(position, number, lease, holder, now);
}
Dispatcher::Outcome Dispatcher::Adopt(Position position, std::uint32_t number, Duration lease, std::uint64_t holder,
                                      Instant now) {
  return impl_->Adopt(position, number, lease, holder, now);
}
std::vector<Dispatcher::Grant> Dispatcher::LeasesOf(std::uint64_t holder) const { return impl_->LeasesOf(holder); }
std::vector<Dispatcher::Grant> Dispatcher::Leases(std::int64_t leases_max) const { return impl_->Leases(leases_max); }
int Dispatcher::ReleaseAll(std::uint64_t holder, Instant now) { return impl_->ReleaseAll(holder, now); }
void Dispatcher::ExtendAll(std::uint64_t holder, Duration lease, Instant now) { impl_->ExtendAll(holder, lease, now); }
void Dispatcher::SetLapseObserver(std::function<void(Position, std::uint32_t, std::uint64_t)> observer) {
  impl_->SetLapseObserver(std::move(observer));
}
std::optional<Instant> Dispatcher::NextEvent() const { return impl_->NextEvent(); }
Dispatcher::Counts Dispatcher::counts() const { return impl_->counts(); }
std::optional<Instant> Dispatcher::OldestEnqueued() const { return impl_->OldestEnqueued(); }
std::optional<Instant> Dispatcher::EnqueuedAt(Position position) const { return impl_->EnqueuedAt(position); }
bool Dispatcher::Contains(Position position) const { return impl_->Contains(position); }
std::optional<Dispatcher::Notes> Dispatcher::NotesOf(Position position) const { return impl_->NotesOf(position); }

}  // namespace postkeeper
