#include "zkstore/real_environment.h"

#include <pthread.h>
#include <sys/random.h>
#include <time.h>

#include <algorithm>
#include <asio/steady_timer.hpp>
#include <asio/strand.hpp>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"

namespace postkeeper {
namespace {

constexpr std::size_t kThreadNameMax = 15;  // the kernel's limit

// Far beyond any delay that somebody waits for, and far from the overflow of the clock.
constexpr Duration kDelayMax = std::chrono::hours(24 * 365);

std::chrono::nanoseconds ReadClock(clockid_t clock) {
  timespec now{};
  if (clock_gettime(clock, &now) != 0) {
    std::perror("postkeeper: clock_gettime");
    std::abort();
  }
  return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
}

class AsioTimer : public Timer {
 public:
  explicit AsioTimer(asio::any_io_executor executor) : state_(std::make_shared<State>(std::move(executor))) {}
  ~AsioTimer() override { Cancel(); }

  void Start(Duration delay, std::function<void()> function) override {
    absl::MutexLock lock(&state_->mutex);
    state_->Stop();
    state_->function = std::move(function);
    state_->timer.expires_after(std::clamp(delay, Duration::zero(), kDelayMax));
    state_->timer.async_wait([state = state_, run = state_->run](const asio::error_code&) {
      std::function<void()> due;
      {
        absl::MutexLock at_alarm(&state->mutex);
        // An alarm that was already queued when it was cancelled comes here without an error: only the count tells.
        if (run != state->run) return;
        due = std::exchange(state->function, nullptr);
      }
      due();  // may destroy the timer
    });
  }

  void Cancel() override {
    std::function<void()> dropped;  // destroyed without the lock: it may own anything
    absl::MutexLock lock(&state_->mutex);
    state_->Stop();
    dropped = std::exchange(state_->function, nullptr);
  }

 private:
  struct State {
    explicit State(asio::any_io_executor executor) : timer(std::move(executor)) {}
    void Stop() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
      ++run;
      timer.cancel();
    }

    absl::Mutex mutex;
    asio::steady_timer timer ABSL_GUARDED_BY(mutex);
    std::uint64_t run ABSL_GUARDED_BY(mutex) = 0;  // rises with every Start and Cancel
    std::function<void()> function ABSL_GUARDED_BY(mutex);
  };
  const std::shared_ptr<State> state_;  // a queued alarm keeps it
};

}  // namespace

RealEnvironment::RealEnvironment(int threads, std::string name)
    : loop_(std::max(threads, 1)), keeps_running_(loop_.get_executor()) {
  for (int i = 0; i < std::max(threads, 1); ++i) {
    std::string suffix = absl::StrCat("-", i);
    std::string shown = name.substr(0, kThreadNameMax - suffix.size()) + suffix;
    threads_.emplace_back([this, shown] {
      pthread_setname_np(pthread_self(), shown.c_str());
      loop_.run();
    });
  }
}

RealEnvironment::~RealEnvironment() {
  Stop();
  Join();
}

void RealEnvironment::Stop() { loop_.stop(); }

void RealEnvironment::Join() {
  for (std::thread& thread : threads_) {
    if (thread.joinable()) thread.join();
  }
}

Instant RealEnvironment::Now() const { return Instant(ReadClock(CLOCK_BOOTTIME)); }

WallTime RealEnvironment::WallNow() const {
  return WallTime(std::chrono::duration_cast<std::chrono::milliseconds>(ReadClock(CLOCK_REALTIME)));
}

void RealEnvironment::FillRandom(std::span<std::uint8_t> bytes) {
  while (!bytes.empty()) {
    ssize_t count = getrandom(bytes.data(), bytes.size(), 0);
    if (count < 0) {
      if (errno == EINTR) continue;
      std::perror("postkeeper: getrandom");
      std::abort();
    }
    bytes = bytes.subspan(static_cast<std::size_t>(count));
  }
}

asio::any_io_executor RealEnvironment::executor() { return loop_.get_executor(); }

asio::any_io_executor RealEnvironment::MakeStrand() { return asio::make_strand(loop_); }

std::unique_ptr<Timer> RealEnvironment::MakeTimer(asio::any_io_executor executor) {
  return std::make_unique<AsioTimer>(std::move(executor));
}

}  // namespace postkeeper
