// Patience with a stream: when to open it again, and when to give up on a silent one.
#ifndef POSTKEEPER_CLI_RETRY_H_
#define POSTKEEPER_CLI_RETRY_H_

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>

namespace postkeeper::cli {

// The wait between two attempts: 0.1 s, doubling up to 2 s. For ever: a worker outlasts its server's restarts. Used by
// one thread.
class Retry {
 public:
  // True until the first Wait after a Reset: the moment to say that something broke.
  bool is_first() const { return is_first_; }
  void Reset() {
    is_first_ = true;
    wait_ = kFirst;
  }
  // Returns early when there is no reason left to wait.
  void Wait(const std::function<bool()>& is_over) {
    is_first_ = false;
    const auto end = std::chrono::steady_clock::now() + wait_;
    while (!is_over() && std::chrono::steady_clock::now() < end) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    wait_ = std::min(2 * wait_, kLongest);
  }

 private:
  static constexpr std::chrono::milliseconds kFirst{100};
  static constexpr std::chrono::milliseconds kLongest{2000};

  bool is_first_ = true;
  std::chrono::milliseconds wait_ = kFirst;
};

// Calls `bark` (on a thread of its own) each time nothing was fed for `patience`. Feed is thread-safe.
class Watchdog {
 public:
  Watchdog(std::chrono::milliseconds patience, std::function<void()> bark)
      : patience_(patience), bark_(std::move(bark)), thread_([this] { Watch(); }) {}
  ~Watchdog() {
    {
      const std::lock_guard lock(mu_);
      is_over_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  void Feed() {
    const std::lock_guard lock(mu_);
    fed_ = std::chrono::steady_clock::now();
  }

 private:
  void Watch() {
    std::unique_lock lock(mu_);
    while (!is_over_) {
      changed_.wait_until(lock, fed_ + patience_);
      if (is_over_ || std::chrono::steady_clock::now() < fed_ + patience_) continue;
      bark_();
      fed_ = std::chrono::steady_clock::now();
    }
  }

  const std::chrono::milliseconds patience_;
  const std::function<void()> bark_;
  std::mutex mu_;
  std::condition_variable changed_;
  // Both guarded by mu_.
  std::chrono::steady_clock::time_point fed_ = std::chrono::steady_clock::now();
  bool is_over_ = false;
  std::thread thread_;  // Last: it uses all of the above.
};

}  // namespace postkeeper::cli

#endif  // POSTKEEPER_CLI_RETRY_H_
