// A load: something that keeps its other side busy from Start to Stop and counts what was answered.
#ifndef POSTKEEPER_BENCH_LOAD_H_
#define POSTKEEPER_BENCH_LOAD_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"

namespace postkeeper::bench {

using Clock = std::chrono::steady_clock;

// The workloads and their ceilings are all of this shape, so that one function (Measure) measures all of them in the
// same way.
//
// Threads: a load has threads of its own; done(), Fail and RecordLatency are thread-safe, the rest is called by the
// measuring thread.
class Load {
 public:
  virtual ~Load() = default;  // derived destructors call Stop

  virtual absl::Status Start() = 0;
  // Starts nothing more, and returns when what was on its way is answered. Each load bounds that by deadlines. May be
  // called again.
  virtual void Stop() = 0;

  // Answered so far: messages, or operations. Counts only what the promise is about: durable, settled, received.
  std::int64_t done() const { return done_.load(std::memory_order_relaxed); }

  // The first failure; OK while there was none. A load that has failed does no more.
  absl::Status status() const {
    const std::lock_guard lock(mutex_);
    return status_;
  }

  // From now on each answer's time is kept, if the load knows it. Ends with Take.
  void RecordLatencies() { is_recording_ = true; }
  std::vector<Clock::duration> TakeLatencies() {
    is_recording_ = false;
    const std::lock_guard lock(mutex_);
    return std::exchange(latencies_, {});
  }

 protected:
  void CountDone(std::int64_t count) { done_.fetch_add(count, std::memory_order_relaxed); }
  void Fail(absl::Status status) {
    const std::lock_guard lock(mutex_);
    if (status_.ok()) status_ = std::move(status);
    has_failed_ = true;
  }
  bool has_failed() const { return has_failed_; }
  void RecordLatency(Clock::duration latency) {
    if (!is_recording_) return;
    const std::lock_guard lock(mutex_);
    if (latencies_.size() < kLatenciesMax) latencies_.push_back(latency);
  }

 private:
  static constexpr std::size_t kLatenciesMax = 4'000'000;

  std::atomic<std::int64_t> done_ = 0;
  std::atomic<bool> is_recording_ = false;
  std::atomic<bool> has_failed_ = false;
  mutable std::mutex mutex_;
  // Guarded by mutex_.
  absl::Status status_;
  std::vector<Clock::duration> latencies_;
};

}  // namespace postkeeper::bench

#endif  // POSTKEEPER_BENCH_LOAD_H_
