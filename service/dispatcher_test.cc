#include "service/dispatcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <tuple>
#include <vector>

namespace postkeeper {
namespace {

using std::chrono::hours;
using std::chrono::minutes;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Outcome = Dispatcher::Outcome;
using Grant = Dispatcher::Grant;

constexpr Instant kStart{hours(100)};

Position At(std::uint32_t index) { return Position(3, 17, index); }

Instant Second(int n) { return kStart + seconds(n); }

// A dispatcher with leases of 30 s unless a test says otherwise.
class DispatcherTest : public ::testing::Test {
 protected:
  DispatcherTest() {
    dispatcher_.SetLapseObserver([this](Position position, std::uint32_t number, std::uint64_t holder) {
      lapses_.emplace_back(position.index(), number, holder);
    });
  }

  void Add(std::uint32_t index, Instant now = kStart, std::optional<Instant> due = std::nullopt) {
    dispatcher_.Add({.position = At(index), .bytes = 100, .enqueued = now, .due = due}, now);
  }

  std::vector<Grant> Take(std::int64_t messages_max, Instant now, std::uint64_t holder = 1,
                          Duration lease = seconds(30)) {
    return dispatcher_.Take({.messages_max = messages_max, .lease = lease, .holder = holder}, now);
  }

  static std::vector<std::uint32_t> Indexes(const std::vector<Grant>& grants) {
    std::vector<std::uint32_t> indexes;
    for (const Grant& grant : grants) indexes.push_back(grant.position.index());
    return indexes;
  }

  // "ready delayed leased bytes".
  std::string Counts() const {
    const Dispatcher::Counts counts = dispatcher_.counts();
    EXPECT_EQ(counts.total(), counts.ready + counts.delayed + counts.leased);
    return absl::StrCat(counts.ready, " ", counts.delayed, " ", counts.leased, " ", counts.bytes);
  }

  Dispatcher dispatcher_{{.backoff = {.first = seconds(1), .max = minutes(10)}, .lease_max = hours(1)}};
  std::vector<std::tuple<std::uint32_t, std::uint32_t, std::uint64_t>> lapses_;
};

// The wait doubles with each attempt up to its maximum, also where doubling would overflow.
TEST(BackoffTest, DoublesUpToTheMaximum) {
  const Backoff backoff{.first = seconds(1), .max = seconds(10)};
  EXPECT_EQ(backoff.After(1), seconds(1));
  EXPECT_EQ(backoff.After(2), seconds(2));
  EXPECT_EQ(backoff.After(4), seconds(8));
  EXPECT_EQ(backoff.After(5), seconds(10));
  EXPECT_EQ(backoff.After(std::numeric_limits<std::int32_t>::max()), seconds(10));
  EXPECT_EQ((Backoff{.first = seconds(1), .max = Duration::max()}).After(1000), Duration::max());
}

// Odd settings give a sane wait: first above max is max, nothing is nothing.
TEST(BackoffTest, OddSettings) {
  EXPECT_EQ((Backoff{.first = seconds(20), .max = seconds(10)}).After(1), seconds(10));
  EXPECT_EQ((Backoff{.first = seconds(0), .max = seconds(10)}).After(5), seconds(0));
  EXPECT_EQ((Backoff{.first = seconds(-1), .max = seconds(10)}).After(5), seconds(0));
}

// Messages are given out by position, whatever order they were added in, with everything a consumer is told.
TEST_F(DispatcherTest, GivesOutInLogOrder) {
  for (const std::uint32_t index : {5u, 7u, 1u, 9u, 3u}) Add(index);
  const std::vector<Grant> grants = Take(3, Second(1));
  EXPECT_THAT(Indexes(grants), ElementsAre(1, 3, 5));
  EXPECT_EQ(grants[0].bytes, 100);
  EXPECT_EQ(grants[0].number, 1u);
  EXPECT_EQ(grants[0].attempt, 1);
  EXPECT_EQ(grants[0].enqueued, kStart);
  EXPECT_EQ(grants[0].deadline, Second(31));
  EXPECT_EQ(grants[0].last_reason, "");
  EXPECT_THAT(Indexes(Take(10, Second(1))), ElementsAre(7, 9));
  EXPECT_THAT(Take(10, Second(1)), IsEmpty());
}

// A demand's byte bound ends the answer, no message is passed over for a smaller one, and the first always fits.
TEST_F(DispatcherTest, TakeIsBoundedByBytes) {
  const std::vector<std::int32_t> sizes = {100, 100, 500, 10};
  for (std::uint32_t i = 0; i < sizes.size(); ++i) {
    dispatcher_.Add({.position = At(i), .bytes = sizes[i]}, kStart);
  }
  const Dispatcher::Demand demand{.messages_max = 10, .bytes_max = 250, .lease = seconds(30)};
  EXPECT_THAT(Indexes(dispatcher_.Take(demand, kStart)), ElementsAre(0, 1));
  EXPECT_THAT(Indexes(dispatcher_.Take(demand, kStart)), ElementsAre(2));
  EXPECT_THAT(Indexes(dispatcher_.Take(demand, kStart)), ElementsAre(3));
}

// A demand for nothing, or for less, gets nothing and changes nothing.
TEST_F(DispatcherTest, NoDemandNoGrant) {
  Add(1);
  EXPECT_THAT(Take(0, kStart), IsEmpty());
  EXPECT_THAT(Take(std::numeric_limits<std::int64_t>::min(), kStart), IsEmpty());
  EXPECT_EQ(Counts(), "1 0 0 100");
}

// No lease is longer than lease_max, and no sum of times overflows.
TEST_F(DispatcherTest, LeasesAreBounded) {
  Add(1);
  EXPECT_EQ(Take(1, kStart, 1, Duration::max())[0].deadline, kStart + hours(1));
  Dispatcher unbounded({.lease_max = Duration::max()});
  unbounded.Add({.position = At(1)}, kStart);
  EXPECT_EQ(unbounded.Take({.lease = Duration::max()}, kStart)[0].deadline, Instant::max());
  EXPECT_EQ(unbounded.Extend(At(1), 1, Duration::max(), Second(1)), Outcome::kOk);
}

// Settling removes the message for good; a second time it is said to be gone.
TEST_F(DispatcherTest, SettledIsGone) {
  Add(1);
  Take(1, kStart);
  EXPECT_EQ(dispatcher_.CanSettle(At(1), 1, kStart), Outcome::kOk);
  EXPECT_TRUE(dispatcher_.Contains(At(1)));
  EXPECT_EQ(dispatcher_.Settle(At(1), 1, kStart), Outcome::kOk);
  EXPECT_FALSE(dispatcher_.Contains(At(1)));
  EXPECT_EQ(dispatcher_.CanSettle(At(1), 1, kStart), Outcome::kAlreadySettled);
  EXPECT_EQ(dispatcher_.Settle(At(1), 1, kStart), Outcome::kAlreadySettled);
  EXPECT_EQ(dispatcher_.Nack(At(1), 1, std::nullopt, "", kStart), Outcome::kAlreadySettled);
  EXPECT_EQ(dispatcher_.Release(At(1), 1, kStart), Outcome::kAlreadySettled);
  EXPECT_EQ(dispatcher_.Extend(At(1), 1, seconds(1), kStart), Outcome::kAlreadySettled);
  EXPECT_EQ(dispatcher_.Adopt(At(1), 1, seconds(1), 1, kStart), Outcome::kAlreadySettled);
  EXPECT_EQ(Counts(), "0 0 0 0");
  EXPECT_EQ(dispatcher_.NextEvent(), std::nullopt);
}

// A number that is not the latest giving-out's answers kStaleLease to everything, and changes nothing.
TEST_F(DispatcherTest, OtherNumbersAreStale) {
  Add(1);
  Take(1, kStart);
  dispatcher_.Nack(At(1), 1, seconds(0), "", kStart);
  Take(1, kStart);
  for (const std::uint32_t number : {0u, 1u, 3u}) {
    EXPECT_EQ(dispatcher_.CanSettle(At(1), number, kStart), Outcome::kStaleLease);
    EXPECT_EQ(dispatcher_.Settle(At(1), number, kStart), Outcome::kStaleLease);
    EXPECT_EQ(dispatcher_.Nack(At(1), number, std::nullopt, "", kStart), Outcome::kStaleLease);
    EXPECT_EQ(dispatcher_.Release(At(1), number, kStart), Outcome::kStaleLease);
    EXPECT_EQ(dispatcher_.Extend(At(1), number, seconds(90), kStart), Outcome::kStaleLease);
  }
  EXPECT_EQ(Counts(), "0 0 1 100");
  EXPECT_EQ(dispatcher_.NextEvent(), Second(30));
}

// Number 0 names no giving-out, also for a message that was never given out.
TEST_F(DispatcherTest, NumberZeroNamesNothing) {
  Add(1);
  EXPECT_EQ(dispatcher_.Settle(At(1), 0, kStart), Outcome::kStaleLease);
  EXPECT_EQ(Counts(), "1 0 0 100");
}

// At its deadline, not before, a lease lapses: the observer is told, and the message comes again as attempt 2.
TEST_F(DispatcherTest, LeaseLapses) {
  Add(1);
  Take(1, kStart, 7);
  EXPECT_EQ(dispatcher_.NextEvent(), Second(30));
  EXPECT_EQ(dispatcher_.Advance(Second(30) - Duration(1)), 0);
  EXPECT_THAT(lapses_, IsEmpty());
  EXPECT_EQ(dispatcher_.Advance(Second(30)), 1);
  EXPECT_THAT(lapses_, ElementsAre(std::tuple(1, 1, 7)));
  EXPECT_EQ(dispatcher_.NextEvent(), std::nullopt);
  const std::vector<Grant> grants = Take(1, Second(30), 8);
  ASSERT_THAT(Indexes(grants), ElementsAre(1));
  EXPECT_EQ(grants[0].number, 2u);
  EXPECT_EQ(grants[0].attempt, 2);
  EXPECT_EQ(grants[0].last_reason, "lease lapsed");
}

// Leases lapse by deadline and then by position, so that a run can be repeated exactly.
TEST_F(DispatcherTest, LapsesInOrder) {
  for (const std::uint32_t index : {1u, 2u, 3u, 4u}) Add(index);
  Take(2, kStart, 1, seconds(20));
  Take(2, kStart, 2, seconds(10));
  dispatcher_.Extend(At(2), 1, seconds(10), kStart);  // now after 3 and 4 in the same list
  EXPECT_EQ(dispatcher_.Advance(Second(60)), 4);
  EXPECT_THAT(lapses_, ElementsAre(std::tuple(2, 1, 1), std::tuple(3, 1, 2), std::tuple(4, 1, 2), std::tuple(1, 1, 1)));
}

// What came back is given out before what stands behind it in the log.
TEST_F(DispatcherTest, ReturnedMessagesKeepTheirPlace) {
  for (const std::uint32_t index : {1u, 2u, 3u, 4u, 5u}) Add(index);
  Take(3, kStart);
  dispatcher_.Nack(At(2), 1, seconds(0), "", kStart);
  EXPECT_THAT(Indexes(Take(2, kStart)), ElementsAre(2, 4));
}

// The last holder's ack counts after its deadline as long as nobody else has the message, and not after that.
TEST_F(DispatcherTest, LateAckCountsUntilGivenOutAgain) {
  Add(1);
  Add(2);
  Take(2, kStart);
  EXPECT_EQ(dispatcher_.Settle(At(1), 1, Second(60)), Outcome::kOk);
  EXPECT_THAT(Indexes(Take(10, Second(60), 2)), ElementsAre(2));
  EXPECT_EQ(dispatcher_.Settle(At(2), 1, Second(60)), Outcome::kStaleLease);
  EXPECT_EQ(dispatcher_.Settle(At(2), 2, Second(60)), Outcome::kOk);
}

// Extending moves the deadline; a lapsed lease comes alive again for the same holder.
TEST_F(DispatcherTest, ExtendMovesTheDeadlineAndRevives) {
  Add(1);
  Take(1, kStart, 7);
  EXPECT_EQ(dispatcher_.Extend(At(1), 1, seconds(30), Second(20)), Outcome::kOk);
  EXPECT_EQ(dispatcher_.Advance(Second(49)), 0);
  EXPECT_EQ(dispatcher_.Advance(Second(50)), 1);
  EXPECT_EQ(dispatcher_.Extend(At(1), 1, seconds(30), Second(55)), Outcome::kOk);
  EXPECT_THAT(Take(1, Second(55)), IsEmpty());
  EXPECT_THAT(Indexes(dispatcher_.LeasesOf(7)), ElementsAre(1));
  EXPECT_EQ(dispatcher_.NextEvent(), Second(85));
}

// A message cannot be held for more than lease_max after its delivery; an attempt to changes nothing.
TEST_F(DispatcherTest, ExtendHasALimit) {
  Add(1);
  Take(1, kStart);
  EXPECT_EQ(dispatcher_.Extend(At(1), 1, hours(1) - seconds(10), Second(10)), Outcome::kOk);
  EXPECT_EQ(dispatcher_.NextEvent(), kStart + hours(1));
  EXPECT_EQ(dispatcher_.Extend(At(1), 1, hours(1) - seconds(10), Second(11)), Outcome::kLeaseLimit);
  EXPECT_EQ(dispatcher_.NextEvent(), kStart + hours(1));
  EXPECT_EQ(dispatcher_.Extend(At(1), 1, seconds(1), kStart + hours(2)), Outcome::kLeaseLimit);
  EXPECT_EQ(Counts(), "1 0 0 100");
  EXPECT_EQ(dispatcher_.Settle(At(1), 1, kStart + hours(3)), Outcome::kOk);
}

// A failed message waits: for the named delay, else for the backoff of its attempt. The reason goes to the next holder.
TEST_F(DispatcherTest, NackDelays) {
  Add(1);
  Take(1, kStart);
  Instant due;
  EXPECT_EQ(dispatcher_.Nack(At(1), 1, seconds(5), "disk full", kStart, &due), Outcome::kOk);
  EXPECT_EQ(due, Second(5));
  EXPECT_EQ(Counts(), "0 1 0 100");
  EXPECT_EQ(dispatcher_.NotesOf(At(1))->due, Second(5));
  EXPECT_THAT(Take(1, Second(4)), IsEmpty());
  EXPECT_EQ(Take(1, Second(5)).at(0).last_reason, "disk full");
  EXPECT_EQ(dispatcher_.Nack(At(1), 2, std::nullopt, "", Second(5), &due), Outcome::kOk);
  EXPECT_EQ(due, Second(7));
  const std::vector<Grant> grants = Take(1, Second(7));
  EXPECT_EQ(grants.at(0).attempt, 3);
  EXPECT_EQ(grants.at(0).last_reason, "") << "the latest Nack had none";
  dispatcher_.SetBackoff({.first = seconds(100), .max = seconds(100)});
  EXPECT_EQ(dispatcher_.Nack(At(1), 3, std::nullopt, "", Second(7), &due), Outcome::kOk);
  EXPECT_EQ(due, Second(107));
}

// A delay of zero or less is none, and an endless one does not overflow.
TEST_F(DispatcherTest, NackWithOddDelays) {
  Add(1);
  Take(1, kStart);
  Instant due;
  EXPECT_EQ(dispatcher_.Nack(At(1), 1, Duration::min(), "", kStart, &due), Outcome::kOk);
  EXPECT_EQ(due, kStart);
  Take(1, kStart);
  EXPECT_EQ(dispatcher_.Nack(At(1), 2, Duration::max(), "", kStart, &due), Outcome::kOk);
  EXPECT_EQ(due, Instant::max());
}

// Nacking again is harmless: kOk with the first due time. The holder may still settle, but it cannot extend.
TEST_F(DispatcherTest, WhatANackedLeaseMayStillDo) {
  Add(1);
  Take(1, kStart);
  dispatcher_.Nack(At(1), 1, seconds(5), "first", kStart);
  Instant due;
  EXPECT_EQ(dispatcher_.Nack(At(1), 1, seconds(50), "second", Second(1), &due), Outcome::kOk);
  EXPECT_EQ(due, Second(5));
  EXPECT_EQ(dispatcher_.Release(At(1), 1, Second(1)), Outcome::kOk);
  EXPECT_EQ(dispatcher_.Extend(At(1), 1, seconds(1), Second(1)), Outcome::kStaleLease);
  EXPECT_EQ(Counts(), "0 1 0 100");
  EXPECT_EQ(dispatcher_.NotesOf(At(1))->attempts, 1);
  dispatcher_.Advance(Second(6));
  EXPECT_EQ(dispatcher_.Nack(At(1), 1, seconds(50), "third", Second(6), &due), Outcome::kOk);
  EXPECT_EQ(due, Second(5)) << "also once it is ready again";
  EXPECT_EQ(dispatcher_.Settle(At(1), 1, Second(6)), Outcome::kOk);
  EXPECT_EQ(Counts(), "0 0 0 0");
  EXPECT_EQ(dispatcher_.NextEvent(), std::nullopt);
}

// A lease that has lapsed can still be nacked, with all that a Nack does.
TEST_F(DispatcherTest, NackAfterTheDeadline) {
  Add(1);
  Take(1, kStart);
  Instant due;
  EXPECT_EQ(dispatcher_.Nack(At(1), 1, seconds(5), "too slow", Second(60), &due), Outcome::kOk);
  EXPECT_EQ(due, Second(65));
  EXPECT_EQ(Counts(), "0 1 0 100");
  EXPECT_EQ(Take(1, Second(65)).at(0).last_reason, "too slow");
}

// A released message is ready at once and its attempt does not count, once; its delivery number does.
TEST_F(DispatcherTest, ReleaseDoesNotCount) {
  Add(1);
  Take(1, kStart);
  EXPECT_EQ(dispatcher_.Release(At(1), 1, kStart), Outcome::kOk);
  EXPECT_EQ(dispatcher_.Release(At(1), 1, kStart), Outcome::kOk);
  EXPECT_EQ(dispatcher_.NotesOf(At(1))->attempts, 0);
  std::vector<Grant> grants = Take(1, kStart);
  EXPECT_EQ(grants.at(0).attempt, 1);
  EXPECT_EQ(grants.at(0).number, 2u);
  dispatcher_.Nack(At(1), 2, seconds(0), "", kStart);
  grants = Take(1, kStart);
  EXPECT_EQ(grants.at(0).attempt, 2);
  dispatcher_.Release(At(1), 3, kStart);
  dispatcher_.Release(At(1), 3, kStart);
  EXPECT_EQ(Take(1, kStart).at(0).attempt, 2) << "only the released giving-out does not count";
}

// A release may ask for a delay: the attempt does not count then either. A reason is kept, none leaves the earlier one.
TEST_F(DispatcherTest, ReleaseWithDelayDoesNotCount) {
  Add(1);
  Take(1, kStart);
  EXPECT_EQ(dispatcher_.Release(At(1), 1, kStart, seconds(5), "moving"), Outcome::kOk);
  EXPECT_EQ(dispatcher_.counts().delayed, 1);
  EXPECT_EQ(dispatcher_.NotesOf(At(1))->attempts, 0);
  EXPECT_EQ(dispatcher_.NotesOf(At(1))->due, Second(5));
  EXPECT_EQ(dispatcher_.Release(At(1), 1, Second(1)), Outcome::kOk) << "a repeat changes nothing";
  EXPECT_THAT(Take(1, Second(4)), IsEmpty());
  std::vector<Grant> grants = Take(1, Second(5));
  EXPECT_EQ(grants.at(0).attempt, 1);
  EXPECT_EQ(grants.at(0).last_reason, "moving");
  dispatcher_.Release(At(1), 2, Second(5));
  EXPECT_EQ(Take(1, Second(5)).at(0).last_reason, "moving");
}

// Of a released message, Extend is refused, and a Nack changes nothing and says since when it is ready.
TEST_F(DispatcherTest, WhatAReleasedLeaseMayStillDo) {
  Add(1);
  Take(1, kStart);
  dispatcher_.Release(At(1), 1, Second(1));
  Instant due;
  EXPECT_EQ(dispatcher_.Nack(At(1), 1, seconds(50), "late", Second(2), &due), Outcome::kOk);
  EXPECT_EQ(due, Second(1));
  EXPECT_EQ(dispatcher_.Extend(At(1), 1, seconds(1), Second(2)), Outcome::kStaleLease);
  EXPECT_EQ(Counts(), "1 0 0 100");
  EXPECT_EQ(dispatcher_.Settle(At(1), 1, Second(2)), Outcome::kOk);
}

// A grant that could not be sent is taken back without counting; one that has been given out again is left alone.
TEST_F(DispatcherTest, TakeBack) {
  Add(1);
  const Grant first = Take(1, kStart)[0];
  dispatcher_.TakeBack(first, kStart);
  const Grant second = Take(1, kStart).at(0);
  EXPECT_EQ(second.number, 2u);
  EXPECT_EQ(second.attempt, 1);
  dispatcher_.TakeBack(first, kStart);
  EXPECT_EQ(Counts(), "0 0 1 100");
  dispatcher_.Settle(At(1), 2, kStart);
  dispatcher_.TakeBack(second, kStart);
  EXPECT_EQ(Counts(), "0 0 0 0");
}

// A message added with a later due time is delayed until then; one whose time has passed is ready.
TEST_F(DispatcherTest, DueLater) {
  Add(1, kStart, Second(10));
  Add(2, kStart, kStart);
  EXPECT_EQ(Counts(), "1 1 0 200");
  EXPECT_EQ(dispatcher_.NextEvent(), Second(10));
  EXPECT_THAT(Indexes(Take(10, Second(9))), ElementsAre(2));
  EXPECT_THAT(Indexes(Take(10, Second(10))), ElementsAre(1));
}

// Purging spares leased messages unless told otherwise, takes the delayed ones along, and is no lapse.
TEST_F(DispatcherTest, Purge) {
  Add(4, kStart, Second(10));
  for (const std::uint32_t index : {3u, 1u, 2u}) Add(index);
  Take(2, kStart);
  dispatcher_.Nack(At(2), 1, seconds(0), "kept apart", kStart);
  EXPECT_THAT(dispatcher_.Purge(false, kStart), ElementsAre(At(2), At(3), At(4)));
  EXPECT_EQ(Counts(), "0 0 1 100");
  EXPECT_EQ(dispatcher_.Settle(At(2), 1, kStart), Outcome::kAlreadySettled);
  Add(5);
  EXPECT_THAT(dispatcher_.Purge(true, kStart), ElementsAre(At(1), At(5)));
  EXPECT_EQ(Counts(), "0 0 0 0");
  EXPECT_EQ(dispatcher_.NextEvent(), std::nullopt);
  EXPECT_EQ(dispatcher_.OldestEnqueued(), std::nullopt);
  EXPECT_THAT(lapses_, IsEmpty());
  Add(2);
  EXPECT_EQ(Take(1, kStart).at(0).last_reason, "") << "nothing is left of the purged one";
}

// A purge first lets time pass: a lease whose deadline is over protects its message no longer.
TEST_F(DispatcherTest, PurgeSeesLapsedLeases) {
  Add(1);
  Take(1, kStart);
  EXPECT_THAT(dispatcher_.Purge(false, Second(30)), ElementsAre(At(1)));
  EXPECT_THAT(lapses_, ElementsAre(std::tuple(1, 1, 1)));
}

// A holder's leases, and only these, are listed, released and extended together.
TEST_F(DispatcherTest, HoldersAreKeptApart) {
  for (const std::uint32_t index : {1u, 2u, 3u, 4u}) Add(index);
  Take(1, kStart, 8);
  Take(2, kStart, 7);
  Take(1, kStart, 8);
  EXPECT_THAT(Indexes(dispatcher_.LeasesOf(7)), ElementsAre(2, 3));
  EXPECT_THAT(Indexes(dispatcher_.LeasesOf(8)), ElementsAre(1, 4));
  EXPECT_THAT(dispatcher_.LeasesOf(9), IsEmpty());
  dispatcher_.ExtendAll(8, seconds(50), Second(10));
  EXPECT_EQ(dispatcher_.ReleaseAll(7, Second(10)), 2);
  EXPECT_EQ(dispatcher_.ReleaseAll(7, Second(10)), 0);
  EXPECT_EQ(Counts(), "2 0 2 400");
  EXPECT_EQ(dispatcher_.LeasesOf(8).at(0).deadline, Second(60));
  const std::vector<Grant> grants = Take(10, Second(10), 9);
  EXPECT_THAT(Indexes(grants), ElementsAre(2, 3));
  EXPECT_EQ(grants[0].attempt, 1) << "released ones do not count";
}

// For handing over, the leases that last longest come first, whoever holds them, and no more than asked for.
TEST_F(DispatcherTest, LeasesThatLastLongest) {
  for (const std::uint32_t index : {1u, 2u, 3u, 4u, 5u}) Add(index);
  Add(6, kStart, kStart + hours(5));
  Take(1, kStart, 7, seconds(20));
  Take(2, kStart, 8, seconds(40));
  Take(1, kStart, 9, seconds(30));
  EXPECT_THAT(Indexes(dispatcher_.Leases(10)), ElementsAre(2, 3, 4, 1));
  EXPECT_THAT(Indexes(dispatcher_.Leases(2)), ElementsAre(2, 3));
  EXPECT_THAT(dispatcher_.Leases(0), IsEmpty());
  EXPECT_EQ(dispatcher_.Leases(1)[0].deadline, Second(40));
}

// Extending all of a holder's leases goes up to lease_max, shortens none, and revives none that lapsed.
TEST_F(DispatcherTest, ExtendAllIsBounded) {
  for (const std::uint32_t index : {1u, 2u, 3u}) Add(index);
  Take(1, kStart, 7, seconds(10));
  Take(1, Second(5), 7, hours(1) - seconds(5));
  Take(1, Second(5), 7, seconds(60));
  dispatcher_.ExtendAll(7, seconds(100), Second(20));
  EXPECT_THAT(Indexes(dispatcher_.LeasesOf(7)), ElementsAre(2, 3));
  EXPECT_EQ(dispatcher_.LeasesOf(7)[0].deadline, kStart + hours(1)) << "not shortened";
  EXPECT_EQ(dispatcher_.LeasesOf(7)[1].deadline, Second(120));
  dispatcher_.ExtendAll(7, hours(1), Second(21));
  EXPECT_EQ(dispatcher_.LeasesOf(7)[1].deadline, Second(5) + hours(1)) << "as far as allowed";
}

// The age of the oldest message is that of the lowest position, in whatever state it is.
TEST_F(DispatcherTest, OldestEnqueued) {
  EXPECT_EQ(dispatcher_.OldestEnqueued(), std::nullopt);
  Add(2, Second(2));
  Add(1, Second(3), Second(100));
  Add(3, Second(4));
  EXPECT_EQ(dispatcher_.OldestEnqueued(), Second(3));
  Take(1, Second(4));
  EXPECT_EQ(dispatcher_.Settle(At(2), 1, Second(4)), Outcome::kOk);
  EXPECT_EQ(dispatcher_.OldestEnqueued(), Second(3));
  Take(10, Second(100));
  EXPECT_EQ(dispatcher_.Settle(At(1), 1, Second(100)), Outcome::kOk);
  EXPECT_EQ(dispatcher_.OldestEnqueued(), Second(4));
  EXPECT_EQ(dispatcher_.EnqueuedAt(At(3)), Second(4));
  EXPECT_EQ(dispatcher_.EnqueuedAt(At(1)), std::nullopt);
}

// What a cursor says of a message is taken up: numbers and attempts go on, the last reason is told.
TEST_F(DispatcherTest, GoesOnWhereTheCursorEnds) {
  dispatcher_.Add({.position = At(1), .bytes = 1, .number = 4, .attempts = 2, .last_reason = "disk full"}, kStart);
  const Dispatcher::Notes before = *dispatcher_.NotesOf(At(1));
  EXPECT_EQ(before.number, 4u);
  EXPECT_EQ(before.attempts, 2);
  EXPECT_EQ(before.due, std::nullopt);
  EXPECT_FALSE(before.was_given_out);
  const Grant grant = Take(1, kStart)[0];
  EXPECT_EQ(grant.number, 5u);
  EXPECT_EQ(grant.attempt, 3);
  EXPECT_EQ(grant.last_reason, "disk full");
  EXPECT_TRUE(dispatcher_.NotesOf(At(1))->was_given_out);
  EXPECT_EQ(dispatcher_.NotesOf(At(2)).has_value(), false);
}

// The last holder before a change of owner may settle, extend or nack, until the message is given out again.
TEST_F(DispatcherTest, TheLastHolderBeforeAChangeOfOwner) {
  for (const std::uint32_t index : {1u, 2u, 3u, 4u}) {
    dispatcher_.Add({.position = At(index), .number = 2, .attempts = 2}, kStart);
  }
  EXPECT_EQ(dispatcher_.Settle(At(1), 2, kStart), Outcome::kOk);
  EXPECT_EQ(dispatcher_.Extend(At(2), 2, seconds(30), kStart), Outcome::kOk);
  EXPECT_EQ(dispatcher_.Nack(At(3), 2, seconds(30), "", kStart), Outcome::kOk);
  EXPECT_EQ(dispatcher_.Extend(At(4), 2, hours(1) + seconds(1), kStart), Outcome::kLeaseLimit);
  EXPECT_THAT(Indexes(Take(10, kStart)), ElementsAre(4));
  EXPECT_EQ(dispatcher_.Settle(At(4), 2, kStart), Outcome::kStaleLease);
}

// A message that still waits although it was given out had been nacked: its holder cannot extend, but may settle.
TEST_F(DispatcherTest, NackedBeforeAChangeOfOwner) {
  dispatcher_.Add({.position = At(1), .due = Second(10), .number = 2, .attempts = 2}, kStart);
  EXPECT_EQ(dispatcher_.Extend(At(1), 2, seconds(30), kStart), Outcome::kStaleLease);
  EXPECT_EQ(dispatcher_.Adopt(At(1), 2, seconds(30), 7, kStart), Outcome::kStaleLease);
  Instant due;
  EXPECT_EQ(dispatcher_.Nack(At(1), 2, seconds(90), "", kStart, &due), Outcome::kOk);
  EXPECT_EQ(due, Second(10));
  EXPECT_EQ(dispatcher_.Settle(At(1), 2, kStart), Outcome::kOk);
}

// A lease of an earlier owner is adopted with its number, which the cursor need not know, and then is one like others.
TEST_F(DispatcherTest, AdoptsALeaseOfAnEarlierOwner) {
  Add(1);
  EXPECT_EQ(dispatcher_.Adopt(At(1), 0, seconds(30), 7, kStart), Outcome::kStaleLease);
  EXPECT_EQ(dispatcher_.Adopt(At(1), 1, seconds(30), 7, kStart), Outcome::kOk);
  EXPECT_EQ(dispatcher_.Adopt(At(1), 1, seconds(40), 8, kStart), Outcome::kOk) << "announced again, by another stream";
  EXPECT_FALSE(dispatcher_.NotesOf(At(1))->was_given_out);
  EXPECT_THAT(Take(1, kStart), IsEmpty());
  EXPECT_THAT(dispatcher_.LeasesOf(7), IsEmpty());
  ASSERT_THAT(Indexes(dispatcher_.LeasesOf(8)), ElementsAre(1));
  EXPECT_EQ(dispatcher_.LeasesOf(8)[0].attempt, 1);
  EXPECT_EQ(dispatcher_.LeasesOf(8)[0].deadline, Second(40));
  const Grant grant = Take(1, Second(40)).at(0);
  EXPECT_EQ(grant.number, 2u);
  EXPECT_EQ(grant.attempt, 2);
  EXPECT_EQ(dispatcher_.Adopt(At(1), 3, seconds(30), 7, Second(40)), Outcome::kStaleLease) << "given out here";
  EXPECT_EQ(dispatcher_.Settle(At(1), 1, Second(40)), Outcome::kStaleLease);
}

// A lease older than the cursor's latest delivery is not adopted.
TEST_F(DispatcherTest, DoesNotAdoptAnOlderLease) {
  dispatcher_.Add({.position = At(1), .number = 3, .attempts = 3}, kStart);
  EXPECT_EQ(dispatcher_.Adopt(At(1), 2, seconds(30), 7, kStart), Outcome::kStaleLease);
  EXPECT_EQ(dispatcher_.Adopt(At(1), 3, seconds(30), 7, kStart), Outcome::kOk);
  EXPECT_EQ(dispatcher_.NotesOf(At(1))->attempts, 3);
}

// The last delivery number there is stays in use: a message with it is neither lost nor a crash.
TEST_F(DispatcherTest, NumbersDoNotWrap) {
  constexpr std::uint32_t kLast = std::numeric_limits<std::uint32_t>::max();
  constexpr std::int32_t kMost = std::numeric_limits<std::int32_t>::max();
  dispatcher_.Add({.position = At(1), .number = kLast, .attempts = kMost}, kStart);
  const Grant grant = Take(1, kStart)[0];
  EXPECT_EQ(grant.number, kLast);
  EXPECT_EQ(grant.attempt, kMost);
  Add(2);
  EXPECT_EQ(dispatcher_.Adopt(At(2), kLast, seconds(1), 1, kStart), Outcome::kOk);
  EXPECT_EQ(dispatcher_.NotesOf(At(2))->attempts, kMost);
}

// A clock that goes back is taken as the latest time known, so nothing lapses later than it said.
TEST_F(DispatcherTest, TimeDoesNotGoBack) {
  Add(1, Second(10));
  EXPECT_EQ(Take(1, Second(5))[0].deadline, Second(40));
}

// Adding a message that is here is a bug that would break every count: the process says which message and ends.
TEST(DispatcherDeathTest, AddingTwiceEndsTheProcess) {
  Dispatcher dispatcher({});
  dispatcher.Add({.position = At(5)}, kStart);
  EXPECT_DEATH(dispatcher.Add({.position = At(5)}, kStart), "message 3/17/5 was added twice");
}

}  // namespace
}  // namespace postkeeper
