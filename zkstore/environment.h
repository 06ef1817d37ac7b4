// The world as the code sees it: clocks, timers, randomness and the threads that run it.
//
// Everything above this line asks an Environment for the time and for timers, and never the operating system. The
// same code therefore runs on real threads and real clocks in postkeeperd, and on one thread with virtual time in the
// simulator, where a run follows from its seed alone.
#ifndef POSTKEEPER_ZKSTORE_ENVIRONMENT_H_
#define POSTKEEPER_ZKSTORE_ENVIRONMENT_H_

#include <asio/any_io_executor.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

namespace postkeeper {

// Names the clock behind Instant. CLOCK_BOOTTIME in production: it never goes back, and it counts the time that a
// suspended machine slept, which CLOCK_MONOTONIC does not; leases and self-fencing depend on that.
struct BootClock {
  using duration = std::chrono::nanoseconds;
  using rep = duration::rep;
  using period = duration::period;
  using time_point = std::chrono::time_point<BootClock>;
  static constexpr bool is_steady = true;
};

// A point in time for measuring with: deadlines, timeouts, ages inside one process. Means nothing outside the process.
using Instant = BootClock::time_point;
// A point in time for telling people and for storing. May jump when the clock is set.
using WallTime = std::chrono::sys_time<std::chrono::milliseconds>;
using Duration = std::chrono::nanoseconds;

// A one-shot alarm, to be used on the executor it was made for, where its function runs too.
class Timer {
 public:
  // Cancels it, on any thread. Away from its executor the function may be running just then; it must hold what it uses.
  virtual ~Timer() = default;
  // Runs `function` once after `delay`, in place of whatever this timer was to run before.
  virtual void Start(Duration delay, std::function<void()> function) = 0;
  // The function does not run, even if its time has come and it waits in the executor's queue.
  virtual void Cancel() = 0;
};

// Thread-safe. Outlives everything that was made from it.
class Environment {
 public:
  virtual ~Environment() = default;

  virtual Instant Now() const = 0;
  virtual WallTime WallNow() const = 0;

  // Cryptographically random in production, reproducible in the simulator.
  virtual void FillRandom(std::span<std::uint8_t> bytes) = 0;
  std::uint64_t Random64();

  // Runs what is posted to it on any of the environment's threads, several at a time.
  virtual asio::any_io_executor executor() = 0;
  // A fresh strand: runs what is posted to it one at a time, in the order posted.
  virtual asio::any_io_executor MakeStrand() = 0;

  virtual std::unique_ptr<Timer> MakeTimer(asio::any_io_executor executor) = 0;
};

}  // namespace postkeeper

#endif  // POSTKEEPER_ZKSTORE_ENVIRONMENT_H_
