// What a dispatcher keeps in memory.
#include <gtest/gtest.h>
#include <malloc.h>

#include <string>

#include "service/dispatcher.h"

#ifdef __SANITIZE_ADDRESS__
extern "C" std::size_t __sanitizer_get_current_allocated_bytes();
#endif

namespace postkeeper {
namespace {

using std::chrono::hours;
using std::chrono::seconds;
using Outcome = Dispatcher::Outcome;

constexpr Instant kStart{hours(100)};

// What this process has allocated and not freed.
std::size_t AllocatedBytes() {
#ifdef __SANITIZE_ADDRESS__
  return __sanitizer_get_current_allocated_bytes();
#else
  const auto info = mallinfo2();
  return info.uordblks + info.hblkhd;
#endif
}

// Nothing is kept of settled messages, not their reasons nor their holders, also while another message stays for good.
TEST(DispatcherMemoryTest, MemoryFollowsWhatIsHere) {
  Dispatcher dispatcher({});
  dispatcher.Add({.position = Position(3, 17, 0), .bytes = 100, .due = kStart + hours(1000)}, kStart);
  const std::string reason(1024, 'x');
  const auto PassThrough = [&](std::uint64_t first, std::uint64_t count) {
    const auto PositionOf = [](std::uint64_t n) {
      return Position(4, static_cast<std::uint32_t>(n / 1'000), n % 1'000);
    };
    for (std::uint64_t n = first; n < first + count; ++n) {
      dispatcher.Add({.position = PositionOf(n), .last_reason = reason}, kStart);
    }
    for (std::uint64_t n = first; n < first + count; ++n) {
      const Duration lease = seconds(static_cast<std::int64_t>(1 + n % 1'000));
      const Dispatcher::Demand demand{.messages_max = 1, .lease = lease, .holder = n};
      ASSERT_EQ(dispatcher.Take(demand, kStart).at(0).position, PositionOf(n));
      ASSERT_EQ(dispatcher.Nack(PositionOf(n), 1, seconds(0), reason, kStart), Outcome::kOk);
      ASSERT_EQ(dispatcher.Settle(PositionOf(n), 1, kStart), Outcome::kOk);
    }
  };
  PassThrough(0, 1'000);
  const std::size_t before = AllocatedBytes();
  PassThrough(1'000, 10'000);
  EXPECT_EQ(dispatcher.counts().delayed, 1);
  EXPECT_EQ(dispatcher.counts().total(), 1);
  EXPECT_LT(AllocatedBytes(), before + 200'000);
}

}  // namespace
}  // namespace postkeeper
