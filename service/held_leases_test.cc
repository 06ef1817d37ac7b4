#include "service/held_leases.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "service/consume_leg.h"

namespace postkeeper {
namespace {

using std::chrono::seconds;
using testing::IsEmpty;

constexpr Instant kStart{std::chrono::hours(1)};

HeldLease Lease(std::uint32_t index, std::int64_t bytes = 10, Duration remaining = seconds(30)) {
  return {{.source = {}, .epoch = 3, .position = Position(1, 0, index), .number = 1}, bytes, remaining};
}

CheckedOpen Open(std::int64_t messages, std::int64_t bytes) {
  CheckedOpen open;
  open.credit = {messages, bytes};
  return open;
}

// Automatic credit is what is not held: it comes back when a message is settled, and when its lease lapses.
TEST(HeldLeasesTest, AutomaticCreditComesBack) {
  HeldLeases held(Open(5, 100), {}, kStart);
  held.Add(Lease(0), kStart);
  held.Add(Lease(1, 20, seconds(10)), kStart);
  EXPECT_EQ(held.CreditLeft(kStart).messages, 3);
  EXPECT_EQ(held.CreditLeft(kStart).bytes, 70);
  held.Remove(Lease(0).token);
  EXPECT_EQ(held.CreditLeft(kStart).messages, 4);
  EXPECT_EQ(held.CreditLeft(kStart + seconds(10)).messages, 5);
  EXPECT_EQ(held.CreditLeft(kStart + seconds(10)).bytes, 100);
}

// The next delivery may come before the answer to the ack that made room for it: nothing that lives is forgotten for
// it.
TEST(HeldLeasesTest, ADeliveryOvertakesAnAnswer) {
  HeldLeases held(Open(2, 100), {}, kStart);
  held.Add(Lease(0), kStart);
  held.Add(Lease(1), kStart);
  held.OnSettling(Lease(1).token);
  held.Add(Lease(2), kStart);
  EXPECT_EQ(held.CreditLeft(kStart).messages, 0);
  held.Remove(Lease(1).token);
  ASSERT_EQ(held.size(), 2U);
  EXPECT_EQ(held.Held(kStart)[0].token, Lease(0).token);
  EXPECT_EQ(held.CreditLeft(kStart).messages, 0);
}

// Past the bound it forgets first what is being settled, then what was given first.
TEST(HeldLeasesTest, ForgetsTheRightOnes) {
  HeldLeases held(Open(kCreditMessagesMax, kCreditBytesMax), {}, kStart);
  const auto most = static_cast<std::uint32_t>(kHeldLeasesMax);
  for (std::uint32_t index = 0; index < most; ++index) held.Add(Lease(index), kStart);
  held.OnSettling(Lease(5).token);
  held.Add(Lease(most), kStart);
  held.Add(Lease(most + 1), kStart);
  const std::vector<HeldLease> left = held.Held(kStart);
  ASSERT_EQ(left.size(), kHeldLeasesMax);
  EXPECT_EQ(left[0].token, Lease(1).token);
  EXPECT_EQ(left[4].token, Lease(6).token);
  EXPECT_EQ(left.back().token, Lease(most + 1).token);
}

// Credit that is given while as much is held never adds up to more than an owner accepts.
TEST(HeldLeasesTest, CreditLeftIsBounded) {
  HeldLeases held(Open(1, kCreditBytesMax), {}, kStart);
  held.Add(Lease(0), kStart);
  ASSERT_TRUE(held.AddCredit({kCreditMessagesMax, 0}, kStart).ok());
  held.Remove(Lease(0).token);
  EXPECT_EQ(held.CreditLeft(kStart).messages, kCreditMessagesMax);
  EXPECT_EQ(held.CreditLeft(kStart).bytes, kCreditBytesMax);
}

// Manual credit is spent by what is delivered, whatever becomes of it.
TEST(HeldLeasesTest, ManualCreditIsSpent) {
  CheckedOpen open = Open(5, 100);
  open.is_credit_manual = true;
  HeldLeases held(open, {}, kStart);
  held.Add(Lease(0), kStart);
  held.Remove(Lease(0).token);
  EXPECT_EQ(held.CreditLeft(kStart).messages, 4);
  EXPECT_TRUE(held.AddCredit({2, 50}, kStart).ok());
  EXPECT_EQ(held.CreditLeft(kStart).messages, 6);
  EXPECT_EQ(held.CreditLeft(kStart).bytes, 140);
  EXPECT_FALSE(held.AddCredit({kCreditMessagesMax, 1}, kStart).ok());
}

// What is held says how long its lease still lasts; what has lapsed is not in it.
TEST(HeldLeasesTest, RemainingTime) {
  HeldLeases held(Open(5, 100), {}, kStart);
  held.Add(Lease(0), kStart);
  held.Add(Lease(1, 10, seconds(5)), kStart);
  held.Extend(Lease(0).token, seconds(60), kStart + seconds(1));
  const std::vector<HeldLease> left = held.Held(kStart + seconds(5));
  ASSERT_EQ(left.size(), 1U);
  EXPECT_EQ(left[0].token, Lease(0).token);
  EXPECT_EQ(left[0].remaining, seconds(56));
  EXPECT_THAT(held.Held(kStart + seconds(61)), IsEmpty());
}

// Where the server keeps the leases, none lapses.
TEST(HeldLeasesTest, KeptLeases) {
  CheckedOpen open = Open(5, 100);
  open.keeps_leases = true;
  HeldLeases held(open, {}, kStart);
  held.Add(Lease(0), kStart);
  const std::vector<HeldLease> left = held.Held(kStart + seconds(1000));
  ASSERT_EQ(left.size(), 1U);
  EXPECT_EQ(left[0].remaining, seconds(30));
}

// A later giving-out of the same message takes the place of the earlier one, whose token then means nothing here.
TEST(HeldLeasesTest, LaterGivingOut) {
  HeldLeases held(Open(5, 100), {}, kStart);
  held.Add(Lease(0), kStart);
  HeldLease again = Lease(0);
  again.token.number = 2;
  held.Add(again, kStart);
  EXPECT_EQ(held.size(), 1U);
  EXPECT_EQ(held.CreditLeft(kStart).messages, 4);
  held.Remove(Lease(0).token);
  EXPECT_EQ(held.size(), 1U);
  held.Remove(again.token);
  EXPECT_EQ(held.size(), 0U);
}

// However much manual credit is given, what is known stays bounded.
TEST(HeldLeasesTest, Bounded) {
  CheckedOpen open = Open(kCreditMessagesMax, kCreditBytesMax);
  open.is_credit_manual = true;
  HeldLeases held(open, {}, kStart);
  for (std::uint32_t batch = 0; batch < 3; ++batch) {
    for (std::uint32_t i = 0; i < 4096; ++i) {
      HeldLease lease = Lease(i);
      lease.token.position = Position(1, batch, i);
      held.Add(lease, kStart);
    }
  }
  EXPECT_EQ(held.size(), static_cast<std::size_t>(kCreditMessagesMax));
}

}  // namespace
}  // namespace postkeeper
