// A world of one thread whose time stands still unless a test moves it on.
#ifndef POSTKEEPER_ZKSTORE_SIMULATED_ENVIRONMENT_H_
#define POSTKEEPER_ZKSTORE_SIMULATED_ENVIRONMENT_H_

#include <asio/io_context.hpp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>

#include "absl/functional/any_invocable.h"
#include "zkstore/environment.h"
#include "zkstore/task.h"

namespace postkeeper {

// Numbers that follow from a seed alone, whatever the standard library (xoshiro256**, seeded by splitmix64).
class SimulatedRandom {
 public:
  explicit SimulatedRandom(std::uint64_t seed);

  std::uint64_t Next();
  // From 0 to bound - 1; bound must not be 0.
  std::uint64_t Below(std::uint64_t bound);
  // From min to max, both included.
  Duration Between(Duration min, Duration max);
  // True with this probability (0 to 1).
  bool Chance(double probability);

 private:
  std::uint64_t state_[4];
};

// How it works: what is posted to its executors waits in an io_context; alarms wait in a list ordered by their time,
// then by their creation. The test runs what is ready (RunUntilIdle) and moves the clock from one alarm to the next
// (the others below). Nothing else runs, and no clock of the machine is read: the same seed and the same program give
// the same run.
//
// One thread: unlike other environments, all of it, and everything that runs in it, belongs to the thread of the test.
// It outlives what was made from it; when it goes, whatever still waits in it is destroyed without being run.
//
// A program that never comes to rest at one instant, and a RunTask that takes longer than its limit, are broken: the
// process stops with a text that says so.
class SimulatedEnvironment : public Environment {
 public:
  // Far above what a healthy program runs at one instant.
  static constexpr int kStepsAtOneInstantMax = 20'000'000;
  static constexpr Duration kRunTaskLimit = std::chrono::hours(1);

  explicit SimulatedEnvironment(std::uint64_t seed);
  ~SimulatedEnvironment() override;
  SimulatedEnvironment(const SimulatedEnvironment&) = delete;
  SimulatedEnvironment& operator=(const SimulatedEnvironment&) = delete;

  Instant Now() const override { return now_; }
  WallTime WallNow() const override;
  void FillRandom(std::span<std::uint8_t> bytes) override;
  asio::any_io_executor executor() override;
  asio::any_io_executor MakeStrand() override;
  std::unique_ptr<Timer> MakeTimer(asio::any_io_executor executor) override;

  // Runs everything that is ready, and what that makes ready, at this instant.
  void RunUntilIdle();
  // Moves the clock on by `duration`, from alarm to alarm, running everything that becomes ready.
  void AdvanceBy(Duration duration);
  // Moves the clock on until the predicate holds or `duration_max` has passed. It is asked whenever nothing more can
  // run at an instant. Returns what it said last.
  bool RunUntil(const std::function<bool()>& predicate, Duration duration_max);
  // Runs the task on executor(), moving the clock on until it has ended, and returns its result.
  template <typename T>
  T RunTask(Task<T> task, Duration limit = kRunTaskLimit);

  // Sets how far the wall clock is from where it would have been; it jumps by the difference to the last offset.
  void SetWallOffset(Duration offset) { wall_offset_ = offset; }

  // For simulated devices: runs the function after `delay` on executor().
  void RunAfter(Duration delay, absl::AnyInvocable<void()> function);

 private:
  class SimulatedTimer;
  struct AlarmKey {
    Instant time;
    std::uint64_t number;
    friend auto operator<=>(const AlarmKey&, const AlarmKey&) = default;
  };

  AlarmKey AddAlarm(Duration delay, absl::AnyInvocable<void()> alarm);
  // Runs the first alarm if its time is not after `until`, moving the clock to it. False: there is none.
  bool RunNextAlarm(Instant until);

  SimulatedRandom random_;
  Instant now_;
  Duration wall_offset_{};
  std::uint64_t alarms_made_ = 0;
  // Declared in this order: destroying the io_context destroys handlers and with them timers, which leave `alarms_`.
  std::map<AlarmKey, absl::AnyInvocable<void()>> alarms_;
  asio::io_context io_;
};

// ---- implementation ----

template <typename T>
T SimulatedEnvironment::RunTask(Task<T> task, Duration limit) {
  struct Outcome {
    bool has_ended = false;
    std::optional<std::conditional_t<std::is_void_v<T>, bool, T>> value;
  };
  auto outcome = std::make_shared<Outcome>();
  // A function without captures: the coroutine's parameters live in its frame.
  auto run = [](Task<T> inner, std::shared_ptr<Outcome> result) -> Task<void> {
    if constexpr (std::is_void_v<T>) {
      co_await std::move(inner);
    } else {
      result->value.emplace(co_await std::move(inner));
    }
    result->has_ended = true;
  };
  Spawn(executor(), run(std::move(task), outcome));
  if (!RunUntil([&] { return outcome->has_ended; }, limit)) {
    std::fprintf(stderr, "SimulatedEnvironment::RunTask: the task has not ended after %lld s of virtual time\n",
                 static_cast<long long>(std::chrono::duration_cast<std::chrono::seconds>(limit).count()));
    std::abort();
  }
  if constexpr (!std::is_void_v<T>) return std::move(*outcome->value);
}

}  // namespace postkeeper

#endif  // POSTKEEPER_ZKSTORE_SIMULATED_ENVIRONMENT_H_
