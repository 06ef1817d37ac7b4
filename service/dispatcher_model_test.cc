// The dispatcher against a model of it that is too simple to be wrong: one map, every question answered by walking it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <map>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "service/dispatcher.h"

namespace postkeeper {
namespace {

using std::chrono::seconds;
using Outcome = Dispatcher::Outcome;
using Grant = Dispatcher::Grant;

constexpr int kScripts = 300;
constexpr int kOperations = 500;
constexpr std::uint32_t kPositions = 60;  // few, so that the same message meets many operations
constexpr std::uint64_t kHolders = 4;

class Model {
 public:
  explicit Model(Dispatcher::Options options) : options_(options) {}

  std::vector<std::string> lapses;
  void SetBackoff(Backoff backoff) { options_.backoff = backoff; }

  void Add(const Dispatcher::Message& message, Instant now) {
    Advance(now);
    Record record{.enqueued = message.enqueued,
                  .bytes = message.bytes,
                  .number = message.number,
                  .attempts = message.attempts,
                  .reason = message.last_reason,
                  .ready_at = now_,
                  .delivered = now_};
    if (message.due.has_value() && *message.due > now_) {
      record.ready_at = *message.due;
      if (message.number > 0) record.lease = Lease::kGivenUp;
    }
    records_[message.position] = record;
  }

  int Advance(Instant now) {
    now_ = std::max(now_, now);
    std::vector<std::pair<Instant, Position>> over;
    for (const auto& [position, record] : records_) {
      if (record.lease == Lease::kLive && record.deadline <= now_) over.emplace_back(record.deadline, position);
    }
    std::sort(over.begin(), over.end());
    for (const auto& [deadline, position] : over) {
      Record& record = records_[position];
      record.lease = Lease::kLapsed;
      record.ready_at = deadline;
      record.reason = "lease lapsed";
      lapses.push_back(absl::StrCat(position.DebugString(), "#", record.number, "@", record.holder));
    }
    return static_cast<int>(over.size());
  }

  std::vector<Grant> Take(const Dispatcher::Demand& demand, Instant now) {
    Advance(now);
    std::vector<Grant> grants;
    std::int64_t bytes = 0;
    for (auto& [position, record] : records_) {
      if (!IsReady(record)) continue;
      if (static_cast<std::int64_t>(grants.size()) >= demand.messages_max) break;
      bytes += record.bytes;
      if (!grants.empty() && bytes > demand.bytes_max) break;
      record.lease = Lease::kLive;
      ++record.number;
      ++record.attempts;
      record.was_given_out = true;
      record.holder = demand.holder;
      record.delivered = now_;
      record.deadline = now_ + std::min(std::max(demand.lease, Duration::zero()), options_.lease_max);
      grants.push_back(GrantOf(position, record));
    }
    return grants;
  }

  Outcome CanSettle(Position position, std::uint32_t number, Instant now) {
    Advance(now);
    if (!records_.contains(position)) return Outcome::kAlreadySettled;
    return number > 0 && records_[position].number == number ? Outcome::kOk : Outcome::kStaleLease;
  }

  Outcome Settle(Position position, std::uint32_t number, Instant now) {
    const Outcome outcome = CanSettle(position, number, now);
    if (outcome == Outcome::kOk) records_.erase(position);
    return outcome;
  }

  Outcome Nack(Position position, std::uint32_t number, std::optional<Duration> delay, const std::string& reason,
               Instant now, Instant* due) {
    const Outcome outcome = CanSettle(position, number, now);
    if (outcome != Outcome::kOk) return outcome;
    Record& record = records_[position];
    if (record.lease != Lease::kGivenUp) {
      record.lease = Lease::kGivenUp;
      const Duration wait = delay.has_value() ? *delay : options_.backoff.After(record.attempts);
      record.ready_at = now_ + std::max(wait, Duration::zero());
      record.reason = reason;
    }
    *due = record.ready_at;
    return outcome;
  }

  Outcome Release(Position position, std::uint32_t number, Instant now, Duration delay = Duration::zero(),
                  const std::string& reason = "") {
    const Outcome outcome = CanSettle(position, number, now);
    if (outcome != Outcome::kOk) return outcome;
    Record& record = records_[position];
    if (record.lease == Lease::kGivenUp) return outcome;
    record.lease = Lease::kGivenUp;
    record.ready_at = now_ + std::max(delay, Duration::zero());
    if (!reason.empty()) record.reason = reason;
    if (record.attempts > 0) --record.attempts;
    return outcome;
  }

  Outcome Extend(Position position, std::uint32_t number, Duration lease, Instant now) {
    const Outcome outcome = CanSettle(position, number, now);
    if (outcome != Outcome::kOk) return outcome;
    Record& record = records_[position];
    if (record.lease == Lease::kGivenUp) return Outcome::kStaleLease;
    const Instant deadline = now_ + std::max(lease, Duration::zero());
    if (deadline > record.delivered + options_.lease_max) return Outcome::kLeaseLimit;
    record.lease = Lease::kLive;
    record.deadline = deadline;
    return outcome;
  }

  Outcome Adopt(Position position, std::uint32_t number, Duration lease, std::uint64_t holder, Instant now) {
    Advance(now);
    if (!records_.contains(position)) return Outcome::kAlreadySettled;
    Record& record = records_[position];
    if (number == 0 || record.was_given_out || number < record.number) return Outcome::kStaleLease;
    if (number == record.number && record.lease == Lease::kGivenUp) return Outcome::kStaleLease;
    record.attempts += static_cast<std::int32_t>(number - record.number);
    record.number = number;
    record.lease = Lease::kLive;
    record.holder = holder;
    record.delivered = now_;
    record.deadline = now_ + std::min(std::max(lease, Duration::zero()), options_.lease_max);
    return Outcome::kOk;
  }

  std::vector<Position> Purge(bool leased_too, Instant now) {
    Advance(now);
    std::vector<Position> purged;
    for (const auto& [position, record] : records_) {
      if (leased_too || record.lease != Lease::kLive) purged.push_back(position);
    }
    for (const Position position : purged) records_.erase(position);
    return purged;
  }

  std::vector<Grant> LeasesOf(std::uint64_t holder) const {
    std::vector<Grant> leases;
    for (const auto& [position, record] : records_) {
      if (record.lease == Lease::kLive && record.holder == holder) leases.push_back(GrantOf(position, record));
    }
    return leases;
  }

  std::vector<Grant> Leases(std::size_t leases_max) const {
    std::vector<Grant> leases;
    for (const auto& [position, record] : records_) {
      if (record.lease == Lease::kLive) leases.push_back(GrantOf(position, record));
    }
    std::stable_sort(leases.begin(), leases.end(),
                     [](const Grant& a, const Grant& b) { return a.deadline > b.deadline; });
    leases.resize(std::min(leases.size(), leases_max));
    return leases;
  }

  int ReleaseAll(std::uint64_t holder, Instant now) {
    Advance(now);
    const std::vector<Grant> leases = LeasesOf(holder);
    for (const Grant& lease : leases) Release(lease.position, lease.number, now);
    return static_cast<int>(leases.size());
  }

  void ExtendAll(std::uint64_t holder, Duration lease, Instant now) {
    Advance(now);
    for (const Grant& held : LeasesOf(holder)) {
      Record& record = records_[held.position];
      const Instant limit = record.delivered + options_.lease_max;
      record.deadline = std::max(record.deadline, std::min(limit, now_ + lease));
    }
  }

  std::optional<Instant> NextEvent() const {
    std::optional<Instant> next;
    for (const auto& [position, record] : records_) {
      if (IsReady(record)) continue;
      const Instant event = record.lease == Lease::kLive ? record.deadline : record.ready_at;
      next = std::min(event, next.value_or(Instant::max()));
    }
    return next;
  }

  std::string Counts() const {
    std::int64_t ready = 0, delayed = 0, leased = 0, bytes = 0;
    for (const auto& [position, record] : records_) {
      ++(record.lease == Lease::kLive ? leased : IsReady(record) ? ready : delayed);
      bytes += record.bytes;
    }
    return absl::StrCat(ready, " ", delayed, " ", leased, " ", bytes);
  }

  std::optional<Instant> OldestEnqueued() const {
    if (records_.empty()) return std::nullopt;
    return records_.begin()->second.enqueued;
  }

  std::optional<Dispatcher::Notes> NotesOf(Position position) const {
    const auto found = records_.find(position);
    if (found == records_.end()) return std::nullopt;
    const Record& record = found->second;
    Dispatcher::Notes notes{
        .number = record.number, .attempts = record.attempts, .was_given_out = record.was_given_out};
    if (record.lease != Lease::kLive && !IsReady(record)) notes.due = record.ready_at;
    return notes;
  }

 private:
  enum class Lease { kLapsed, kLive, kGivenUp };
  struct Record {
    Instant enqueued{};
    std::int32_t bytes = 0;
    std::uint32_t number = 0;
    std::int32_t attempts = 0;
    std::string reason;
    Instant ready_at{};
    Lease lease = Lease::kLapsed;
    bool was_given_out = false;
    std::uint64_t holder = 0;
    Instant delivered{};
    Instant deadline{};
  };

  bool IsReady(const Record& record) const { return record.lease != Lease::kLive && record.ready_at <= now_; }

  static Grant GrantOf(Position position, const Record& record) {
    return {.position = position,
            .bytes = record.bytes,
            .number = record.number,
            .attempt = record.attempts,
            .enqueued = record.enqueued,
            .deadline = record.deadline,
            .last_reason = record.reason};
  }

  Dispatcher::Options options_;
  Instant now_ = Instant::min();
  std::map<Position, Record> records_;
};

std::string Text(Outcome outcome) {
  switch (outcome) {
    case Outcome::kOk:
      return "ok";
    case Outcome::kAlreadySettled:
      return "already settled";
    case Outcome::kStaleLease:
      return "stale";
    case Outcome::kLeaseLimit:
      return "limit";
  }
  return "?";
}
std::string Text(std::optional<Instant> time) {
  return time.has_value() ? absl::StrCat(time->time_since_epoch().count()) : "never";
}
std::string Text(int number) { return absl::StrCat(number); }
std::string Text(const std::vector<Position>& positions) {
  return absl::StrJoin(positions, " ", [](std::string* out, Position p) { out->append(p.DebugString()); });
}
std::string Text(const std::vector<Grant>& grants) {
  return absl::StrJoin(grants, "; ", [](std::string* out, const Grant& grant) {
    absl::StrAppend(out, grant.position.DebugString(), " ", grant.bytes, " #", grant.number, " attempt ", grant.attempt,
                    " from ", Text(grant.enqueued), " until ", Text(grant.deadline), " ", grant.last_reason);
  });
}
std::string Text(const Dispatcher::Counts& counts) {
  return absl::StrCat(counts.ready, " ", counts.delayed, " ", counts.leased, " ", counts.bytes);
}
std::string Text(const std::optional<Dispatcher::Notes>& notes) {
  if (!notes.has_value()) return "unknown";
  return absl::StrCat("#", notes->number, " attempts ", notes->attempts, " due ", Text(notes->due), " ",
                      notes->was_given_out);
}

// One random script, run on both. Every draw comes from the seed.
class Script {
 public:
  explicit Script(std::uint64_t seed)
      : random_(seed), options_(RandomOptions()), dispatcher_(options_), model_(options_) {
    dispatcher_.SetLapseObserver([this](Position position, std::uint32_t number, std::uint64_t holder) {
      lapses_.push_back(absl::StrCat(position.DebugString(), "#", number, "@", holder));
    });
    purge_weight_ = Below(3) == 0 ? 2 : 0;
  }

  // Does one operation on both and compares the answers and what can be asked. Stops at the first difference.
  void Step(std::map<std::string, int>* seen) {
    PassTime();
    const Done done = Operate();
    ++(*seen)[absl::StrCat(done.what.substr(0, done.what.find(' ')), ": ", done.answer.substr(0, 15))];
    SCOPED_TRACE(absl::StrCat("after: ", done.what, " at ", Text(now_)));
    ASSERT_EQ(done.answer, done.expected);
    ASSERT_EQ(lapses_, model_.lapses);
    lapses_.clear();
    model_.lapses.clear();
    ASSERT_EQ(Text(dispatcher_.counts()), model_.Counts());
    ASSERT_EQ(Text(dispatcher_.NextEvent()), Text(model_.NextEvent()));
    ASSERT_EQ(Text(dispatcher_.OldestEnqueued()), Text(model_.OldestEnqueued()));
    if (++steps_ % 10 == 0) CompareEverything();
  }

  void CompareEverything() {
    ASSERT_EQ(Text(dispatcher_.Leases(5)), Text(model_.Leases(5)));
    for (std::uint64_t holder = 0; holder < kHolders; ++holder) {
      ASSERT_EQ(Text(dispatcher_.LeasesOf(holder)), Text(model_.LeasesOf(holder))) << "of holder " << holder;
    }
    for (std::uint32_t i = 0; i < kPositions; ++i) {
      ASSERT_EQ(Text(dispatcher_.NotesOf(At(i))), Text(model_.NotesOf(At(i)))) << "of " << At(i).DebugString();
      ASSERT_EQ(dispatcher_.Contains(At(i)), model_.NotesOf(At(i)).has_value());
    }
  }

 private:
  struct Done {
    std::string what, answer, expected;
  };

  // Over several batches and segments.
  static Position At(std::uint32_t i) { return Position(i / 20, i / 5 % 4, i % 5); }

  std::uint64_t Below(std::uint64_t bound) {
    return std::uniform_int_distribution<std::uint64_t>(0, bound - 1)(random_);
  }
  Duration Seconds(std::uint64_t bound) { return seconds(static_cast<std::int64_t>(Below(bound))); }
  Dispatcher::Options RandomOptions() {
    const Duration first = Seconds(4);
    const Duration lease_max = seconds(30) + Seconds(60);
    return {.backoff = {.first = first, .max = seconds(20)}, .lease_max = lease_max};
  }

  // Whole seconds, so that deadlines and due times meet each other and `now`. Rarely, a clock that goes back.
  void PassTime() {
    const std::uint64_t dice = Below(100);
    if (dice < 40) now_ += Seconds(3);
    if (dice == 40) now_ += Seconds(60);
    if (dice == 41) now_ -= Seconds(3);
  }

  // Usually a message that is here with its latest number; sometimes neither.
  std::pair<Position, std::uint32_t> RandomName() {
    Position position = At(static_cast<std::uint32_t>(Below(kPositions)));
    for (int tries = 0; tries < 4 && !model_.NotesOf(position).has_value(); ++tries) {
      position = At(static_cast<std::uint32_t>(Below(kPositions)));
    }
    const auto notes = model_.NotesOf(position);
    const std::uint32_t latest = notes.has_value() ? notes->number : 1;
    switch (Below(12)) {
      case 0:
        return {position, latest + 1};
      case 1:
        return {position, latest > 0 ? latest - 1 : 0};
      case 2:
        return {position, 0};
      default:
        return {position, latest};
    }
  }

  Done Operate() {
    const std::uint64_t dice = Below(100);
    if (dice < 25) return Add();
    if (dice < 45) return Take();
    if (dice < 57) return NameOne("settle");
    if (dice < 60) return NameOne("can-settle");
    if (dice < 72) return Nack();
    if (dice < 78) return Release();
    if (dice < 86) return Extend();
    if (dice < 89) return Adopt();
    if (dice < 95) return OfHolder();
    if (dice < 95 + purge_weight_) return Purge();
    if (dice == 98) return SetBackoff();
    return {"advance", Text(dispatcher_.Advance(now_)), Text(model_.Advance(now_))};
  }

  Done Add() {
    Dispatcher::Message message;
    // The lowest position not here yet, or any.
    std::uint32_t i = 0;
    if (Below(3) == 0) i = static_cast<std::uint32_t>(Below(kPositions));
    while (i < kPositions && model_.NotesOf(At(i)).has_value()) ++i;
    if (i == kPositions) return {"full", "", ""};
    message.position = At(i);
    message.bytes = static_cast<std::int32_t>(Below(100));
    message.enqueued = now_ - Seconds(100);
    if (Below(4) == 0) message.due = now_ - seconds(3) + Seconds(10);
    if (Below(4) == 0) {
      message.number = static_cast<std::uint32_t>(Below(5));
      message.attempts = static_cast<std::int32_t>(Below(message.number + 1));
      message.last_reason = Below(2) == 0 ? "from before" : "";
    }
    dispatcher_.Add(message, now_);
    model_.Add(message, now_);
    return {absl::StrCat("add ", message.position.DebugString()), "", ""};
  }

  Done Take() {
    Dispatcher::Demand demand;
    demand.messages_max = static_cast<std::int64_t>(Below(8));
    demand.bytes_max = Below(3) == 0 ? static_cast<std::int64_t>(Below(300)) : 1'000'000;
    demand.lease = seconds(-1) + Seconds(Below(10) == 0 ? 120 : 15);
    demand.holder = Below(kHolders);
    const std::vector<Grant> grants = dispatcher_.Take(demand, now_);
    const Done done{absl::StrCat("take ", demand.messages_max), Text(grants), Text(model_.Take(demand, now_))};
    if (!grants.empty() && Below(8) == 0) {
      const Grant grant = grants[Below(grants.size())];
      dispatcher_.TakeBack(grant, now_);
      model_.Release(grant.position, grant.number, now_);
    }
    return done;
  }

  Done NameOne(const std::string& verb) {
    const auto [position, number] = RandomName();
    const std::string what = absl::StrCat(verb, " ", position.DebugString(), "#", number);
    if (verb == "settle") {
      return {what, Text(dispatcher_.Settle(position, number, now_)), Text(model_.Settle(position, number, now_))};
    }
    return {what, Text(dispatcher_.CanSettle(position, number, now_)), Text(model_.CanSettle(position, number, now_))};
  }

  Done Release() {
    const auto [position, number] = RandomName();
    const Duration delay = Below(2) == 0 ? Duration::zero() : seconds(-1) + Seconds(12);
    const std::string reason = Below(2) == 0 ? "" : absl::StrCat("reason ", Below(1000));
    return {absl::StrCat("release ", position.DebugString(), "#", number),
            Text(dispatcher_.Release(position, number, now_, delay, reason)),
            Text(model_.Release(position, number, now_, delay, reason))};
  }

  Done Nack() {
    const auto [position, number] = RandomName();
    std::optional<Duration> delay;
    if (Below(2) == 0) delay = seconds(-1) + Seconds(12);
    const std::string reason = Below(3) == 0 ? "" : absl::StrCat("reason ", Below(1000));
    Instant due{}, expected_due{};
    const Outcome outcome = dispatcher_.Nack(position, number, delay, reason, now_, &due);
    const Outcome expected = model_.Nack(position, number, delay, reason, now_, &expected_due);
    return {absl::StrCat("nack ", position.DebugString(), "#", number), Text(outcome) + " " + Text(due),
            Text(expected) + " " + Text(expected_due)};
  }

  Done Extend() {
    const auto [position, number] = RandomName();
    const Duration lease = seconds(-1) + Seconds(Below(6) == 0 ? 120 : 20);
    return {absl::StrCat("extend ", position.DebugString(), "#", number, " by ", lease.count()),
            Text(dispatcher_.Extend(position, number, lease, now_)),
            Text(model_.Extend(position, number, lease, now_))};
  }

  Done Adopt() {
    const auto [position, number] = RandomName();
    const Duration lease = seconds(-1) + Seconds(100);
    const std::uint64_t holder = Below(kHolders);
    return {absl::StrCat("adopt ", position.DebugString(), "#", number),
            Text(dispatcher_.Adopt(position, number, lease, holder, now_)),
            Text(model_.Adopt(position, number, lease, holder, now_))};
  }

  Done OfHolder() {
    const std::uint64_t holder = Below(kHolders);
    if (Below(2) == 0) {
      return {absl::StrCat("release-all ", holder), Text(dispatcher_.ReleaseAll(holder, now_)),
              Text(model_.ReleaseAll(holder, now_))};
    }
    const Duration lease = seconds(-1) + Seconds(60);
    dispatcher_.ExtendAll(holder, lease, now_);
    model_.ExtendAll(holder, lease, now_);
    return {absl::StrCat("extend-all ", holder, " by ", lease.count()), "", ""};
  }

  Done Purge() {
    const bool leased_too = Below(2) == 0;
    return {absl::StrCat("purge ", leased_too), Text(dispatcher_.Purge(leased_too, now_)),
            Text(model_.Purge(leased_too, now_))};
  }

  Done SetBackoff() {
    const Backoff backoff{.first = Seconds(5), .max = Seconds(15)};
    dispatcher_.SetBackoff(backoff);
    model_.SetBackoff(backoff);
    return {"set-backoff", "", ""};
  }

  std::mt19937_64 random_;
  Dispatcher::Options options_;
  Dispatcher dispatcher_;
  Model model_;
  Instant now_{seconds(1000)};
  std::vector<std::string> lapses_;
  int steps_ = 0;
  std::uint64_t purge_weight_ = 0;
};

void RunScript(std::uint64_t seed, std::map<std::string, int>* seen) {
  SCOPED_TRACE(absl::StrCat("POSTKEEPER_TEST_SEED=", seed, " repeats this script"));
  Script script(seed);
  for (int i = 0; i < kOperations && !::testing::Test::HasFatalFailure(); ++i) script.Step(seen);
}

// The dispatcher and the model give the same answers, lapses and counts after each operation of random scripts, and
// the scripts do reach every outcome that an operation has.
TEST(DispatcherModelTest, BehavesLikeTheModel) {
  std::map<std::string, int> seen;
  if (const char* seed = std::getenv("POSTKEEPER_TEST_SEED"); seed != nullptr) {
    RunScript(std::strtoull(seed, nullptr, 10), &seen);
    return;
  }
  for (std::uint64_t seed = 1; seed <= kScripts && !HasFatalFailure(); ++seed) RunScript(seed, &seen);
  if (HasFatalFailure()) return;
  for (const char* verb : {"settle", "can-settle", "release", "extend", "adopt"}) {
    for (const char* outcome : {"ok", "already settled", "stale"}) {
      EXPECT_GT(seen[absl::StrCat(verb, ": ", outcome)], 100) << verb << ": " << outcome;
    }
  }
  EXPECT_GT(seen["extend: limit"], 100);
  EXPECT_GT(seen["nack: already settled"], 100);
}

}  // namespace
}  // namespace postkeeper
