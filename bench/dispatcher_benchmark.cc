// What the dispatcher costs per message: the ceiling of one source on one core. The items of items_per_second are
// messages; memory is what the allocator holds for each message of a standing backlog.
#include <benchmark/benchmark.h>
#include <malloc.h>

#include <cstdint>
#include <random>
#include <vector>

#include "service/dispatcher.h"

namespace postkeeper {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Instant kStart{std::chrono::hours(1)};
constexpr std::uint32_t kBatchMessages = 1'000;

Position At(std::uint64_t n) {
  const std::uint64_t batch = n / kBatchMessages;
  return Position(batch / 4'096, static_cast<std::uint32_t>(batch % 4'096),
                  static_cast<std::uint32_t>(n % kBatchMessages));
}

void AddMany(Dispatcher& dispatcher, std::uint64_t first, std::uint64_t count, Instant now) {
  for (std::uint64_t n = first; n < first + count; ++n) {
    dispatcher.Add({.position = At(n), .bytes = 100, .enqueued = now}, now);
  }
}

// Adds, gives out and settles in log order, with a backlog of range(0) waiting and range(1) messages per Take.
void InOrder(benchmark::State& state) {
  const auto backlog = static_cast<std::uint64_t>(state.range(0));
  const auto take = state.range(1);
  Dispatcher dispatcher({});
  AddMany(dispatcher, 0, backlog, kStart);
  std::uint64_t next = backlog;
  Instant now = kStart;
  for (auto _ : state) {
    now += milliseconds(1);
    AddMany(dispatcher, next, static_cast<std::uint64_t>(take), now);
    next += static_cast<std::uint64_t>(take);
    const auto grants = dispatcher.Take({.messages_max = take, .lease = seconds(30), .holder = 1}, now);
    for (const auto& grant : grants) {
      if (dispatcher.Settle(grant.position, grant.number, now) != Dispatcher::Outcome::kOk) state.SkipWithError("lost");
    }
  }
  state.SetItemsProcessed(state.iterations() * take);
}
BENCHMARK(InOrder)
    ->ArgNames({"backlog", "take"})
    ->Args({0, 1})
    ->Args({0, 100})
    ->Args({0, 1'000})
    ->Args({1'000'000, 1'000});

// The same with range(0) messages on lease, each settled when as many others have been given out: many consumers.
void InOrderWithManyLeases(benchmark::State& state) {
  constexpr std::uint64_t kTake = 100;
  constexpr std::uint64_t kHolders = 64;
  const auto leased = static_cast<std::uint64_t>(state.range(0));
  Dispatcher dispatcher({});
  std::uint64_t next = 0;
  Instant now = kStart;
  for (auto _ : state) {
    now += milliseconds(1);
    AddMany(dispatcher, next, kTake, now);
    dispatcher.Take({.messages_max = kTake, .lease = std::chrono::hours(1), .holder = next / kTake % kHolders}, now);
    next += kTake;
    for (std::uint64_t n = next - kTake; n < next && n >= leased; ++n) {
      if (dispatcher.Settle(At(n - leased), 1, now) != Dispatcher::Outcome::kOk) state.SkipWithError("lost");
    }
  }
  state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(kTake));
}
BENCHMARK(InOrderWithManyLeases)->ArgName("leased")->Arg(10'000)->Arg(200'000);

// Takes and nacks with a random delay, over a backlog of range(0), most of it delayed: every step costs O(log n).
void Redeliver(benchmark::State& state) {
  constexpr std::int64_t kTake = 100;
  Dispatcher dispatcher({});
  AddMany(dispatcher, 0, static_cast<std::uint64_t>(state.range(0)), kStart);
  std::mt19937_64 random(1);
  const auto Delay = [&random] { return Duration(static_cast<std::int64_t>(random() % 1'000'000'000)); };
  Instant now = kStart;
  std::int64_t given = 0;
  for (auto _ : state) {
    const auto grants = dispatcher.Take({.messages_max = kTake, .lease = seconds(30), .holder = 1}, now);
    if (grants.empty()) now = *dispatcher.NextEvent();
    for (const auto& grant : grants) dispatcher.Nack(grant.position, grant.number, Delay(), "", now);
    now += milliseconds(1);
    given += static_cast<std::int64_t>(grants.size());
  }
  state.SetItemsProcessed(given);
}
BENCHMARK(Redeliver)->ArgName("backlog")->Arg(1'000)->Arg(1'000'000);

// Lets all leases of range(0) messages lapse at once, as after a crash of every consumer.
void LapseAll(benchmark::State& state) {
  const std::int64_t count = state.range(0);
  Dispatcher dispatcher({});
  AddMany(dispatcher, 0, static_cast<std::uint64_t>(count), kStart);
  Instant now = kStart;
  for (auto _ : state) {
    state.PauseTiming();
    dispatcher.Take({.messages_max = count, .bytes_max = count * 100, .lease = seconds(30), .holder = 1}, now);
    now += seconds(30);
    state.ResumeTiming();
    if (dispatcher.Advance(now) != count) state.SkipWithError("not all lapsed");
  }
  state.SetItemsProcessed(state.iterations() * count);
}
BENCHMARK(LapseAll)->ArgName("leased")->Arg(100'000);

// Gives out and releases what one of 1,000 holders has, while the others hold as much each: costs its own leases only.
void ReleaseAll(benchmark::State& state) {
  constexpr std::int64_t kHolders = 1'000;
  constexpr std::int64_t kEach = 100;
  Dispatcher dispatcher({});
  AddMany(dispatcher, 0, kHolders * kEach, kStart);
  for (std::int64_t holder = 0; holder < kHolders; ++holder) {
    dispatcher.Take({.messages_max = kEach, .lease = seconds(30), .holder = static_cast<std::uint64_t>(holder)},
                    kStart);
  }
  for (auto _ : state) {
    if (dispatcher.ReleaseAll(500, kStart) != kEach) state.SkipWithError("not all released");
    dispatcher.Take({.messages_max = kEach, .lease = seconds(30), .holder = 500}, kStart);
  }
  state.SetItemsProcessed(state.iterations() * kEach);
}
BENCHMARK(ReleaseAll);

enum MemoryOf { kReady, kLeased, kDelayed, kLapsed };

// Bytes per message of a backlog of a million in one state; the time is that of building it.
void Memory(benchmark::State& state) {
  constexpr std::uint64_t kCount = 1'000'000;
  double bytes = 0;
  for (auto _ : state) {
    const auto before = mallinfo2();
    Dispatcher dispatcher({});
    for (std::uint64_t n = 0; n < kCount; ++n) {
      std::optional<Instant> due;
      if (state.range(0) == kDelayed) due = kStart + milliseconds(1 + (n * 7'919) % kCount);
      dispatcher.Add({.position = At(n), .bytes = 100, .enqueued = kStart, .due = due}, kStart);
    }
    if (state.range(0) == kLeased || state.range(0) == kLapsed) {
      for (std::uint64_t n = 0; n < kCount; n += 1'000) {
        dispatcher.Take({.messages_max = 1'000, .lease = seconds(30), .holder = n}, kStart);
      }
    }
    if (state.range(0) == kLapsed) {
      AddMany(dispatcher, kCount, 1, kStart);  // so that what lapses stands behind the end of the order
      dispatcher.Advance(kStart + seconds(30));
    }
    const auto after = mallinfo2();
    bytes = static_cast<double>(after.uordblks + after.hblkhd) - static_cast<double>(before.uordblks + before.hblkhd);
  }
  state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(kCount));
  state.counters["bytes_per_message"] = bytes / static_cast<double>(kCount);
}
BENCHMARK(Memory)->ArgName("state")->Arg(kReady)->Arg(kLeased)->Arg(kDelayed)->Arg(kLapsed);

}  // namespace
}  // namespace postkeeper

BENCHMARK_MAIN();
