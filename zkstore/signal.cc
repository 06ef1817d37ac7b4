#include "zkstore/signal.h"

#include <asio/associated_executor.hpp>
#include <asio/async_result.hpp>
#include <list>
#include <utility>

#include "absl/functional/any_invocable.h"

namespace postkeeper {

struct Signal::State {
  struct Waiter {
    absl::AnyInvocable<void(bool)> resume;
    std::unique_ptr<Timer> timer;  // null: waits without limit
  };

  Environment& environment;
  asio::any_io_executor strand;
  bool notified = false;
  std::list<Waiter> waiters;
};

Signal::Signal(Environment& environment, asio::any_io_executor strand)
    : state_(std::make_shared<State>(State{environment, std::move(strand), false, {}})) {}

Signal::~Signal() = default;

void Signal::Notify() {
  if (state_->waiters.empty()) {
    state_->notified = true;
    return;
  }
  std::list<State::Waiter> waiters = std::move(state_->waiters);
  state_->waiters.clear();
  for (State::Waiter& waiter : waiters) {
    if (waiter.timer) waiter.timer->Cancel();
    waiter.resume(true);
  }
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
        auto waiter = state->waiters.emplace(state->waiters.end());
        waiter->resume = std::move(resume);
        if (timeout == Duration::max()) return;
        waiter->timer = state->environment.MakeTimer(state->strand);
        waiter->timer->Start(timeout, [state, waiter] {
          absl::AnyInvocable<void(bool)> resume_late = std::move(waiter->resume);
          std::unique_ptr<Timer> running = std::move(waiter->timer);  // ends with this function, which it is running
          state->waiters.erase(waiter);
          resume_late(false);
        });
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
