#include "zkstore/signal.h"

#include <asio/associated_executor.hpp>
#include <asio/async_result.hpp>
#include <list>
#include <utility>

#include "absl/functional/any_invocable.h"

namespace postkeeper {

// One timer serves all waits. A notification does not stop it, and a later deadline does not start it anew: it then
// rings too early once, and is set again. So a wait that is always notified long before its time, thousands of times a
// second, costs no timer of its own.
struct Signal::State : std::enable_shared_from_this<Signal::State> {
  struct Waiter {
    absl::AnyInvocable<void(bool)> resume;
    Instant deadline;
  };

  State(Environment& env, const asio::any_io_executor& strand) : environment(env), timer(env.MakeTimer(strand)) {}

  void AlarmAt(Instant deadline) {
    if (deadline >= alarm_at) return;
    alarm_at = deadline;
    timer->Start(deadline - environment.Now(), [weak = weak_from_this()] {
      if (const std::shared_ptr<State> state = weak.lock()) state->OnAlarm();
    });
  }

  void OnAlarm() {
    alarm_at = Instant::max();
    const Instant now = environment.Now();
    std::list<Waiter> late;
    Instant next = Instant::max();
    for (auto waiter = waiters.begin(); waiter != waiters.end();) {
      auto here = waiter++;
      if (here->deadline <= now) {
        late.splice(late.end(), waiters, here);
      } else {
        next = std::min(next, here->deadline);
      }
    }
    AlarmAt(next);
    for (Waiter& waiter : late) waiter.resume(false);
  }

  Environment& environment;
  bool notified = false;
  std::list<Waiter> waiters;
  std::unique_ptr<Timer> timer;
  Instant alarm_at = Instant::max();  // when the timer rings; max: it does not run
};

Signal::Signal(Environment& environment, asio::any_io_executor strand)
    : state_(std::make_shared<State>(environment, strand)) {}

Signal::~Signal() = default;

void Signal::Notify() {
  if (state_->waiters.empty()) {
    state_->notified = true;
    return;
  }
  std::list<State::Waiter> waiters = std::move(state_->waiters);
  state_->waiters.clear();
  for (State::Waiter& waiter : waiters) waiter.resume(true);
}

// Not coroutines: gcc 12 destroys a lambda inside a co_await expression twice.
Task<bool> Signal::WaitFor(Duration timeout) {
  return asio::async_initiate<const asio::use_awaitable_t<>, void(bool)>(
      [state = state_, timeout](auto handler) {
        auto executor = asio::get_associated_executor(handler);
        absl::AnyInvocable<void(bool)> resume = [executor, handler = std::move(handler)](bool notified) mutable {
          asio::post(executor, [handler = std::move(handler), notified]() mutable { std::move(handler)(notified); });
        };
        if (std::exchange(state->notified, false)) return resume(true);
        // Duration::max() and other ends of time don't fit into an Instant.
        const Instant now = state->environment.Now();
        const Instant deadline = timeout < Instant::max() - now ? now + timeout : Instant::max();
        state->waiters.push_back({std::move(resume), deadline});
        state->AlarmAt(deadline);
      },
      asio::use_awaitable);
}

Task<bool> Signal::Wait() { return WaitFor(Duration::max()); }

Task<void> SleepFor(Environment& environment, Duration duration) {
  return asio::async_initiate<const asio::use_awaitable_t<>, void()>(
      [&environment, duration](auto handler) {
        auto executor = asio::get_associated_executor(handler);
        std::shared_ptr<Timer> timer = environment.MakeTimer(executor);
        auto* raw = timer.get();
        raw->Start(duration, [executor, timer = std::move(timer),
                              shared = std::make_shared<decltype(handler)>(std::move(handler))]() mutable {
          asio::post(executor, [shared = std::move(shared)]() mutable { std::move (*shared)(); });
        });
      },
      asio::use_awaitable);
}

}  // namespace postkeeper
