#include "tests/support/simulation/process_environment.h"

#include <asio/execution.hpp>
#include <asio/post.hpp>
#include <asio/query.hpp>
#include <asio/strand.hpp>
#include <deque>
#include <utility>

#include "absl/functional/any_invocable.h"

namespace postkeeper {

struct ProcessEnvironment::State {
  asio::any_io_executor world;
  bool is_paused = false;
  std::deque<absl::AnyInvocable<void()>> waiting;
};

// The world's executor with a door before it.
class ProcessEnvironment::Executor {
 public:
  explicit Executor(std::shared_ptr<State> state) : state_(std::move(state)) {}

  asio::execution_context& query(asio::execution::context_t) const noexcept {
    return asio::query(state_->world, asio::execution::context);
  }
  static constexpr asio::execution::blocking_t query(asio::execution::blocking_t) noexcept {
    return asio::execution::blocking.never;
  }
  Executor require(asio::execution::blocking_t::never_t) const noexcept { return *this; }

  template <typename Function>
  void execute(Function&& function) const {
    if (state_->is_paused) {
      state_->waiting.emplace_back(std::forward<Function>(function));
    } else {
      asio::post(state_->world, std::forward<Function>(function));
    }
  }

  friend bool operator==(const Executor& a, const Executor& b) noexcept { return a.state_ == b.state_; }
  friend bool operator!=(const Executor& a, const Executor& b) noexcept { return a.state_ != b.state_; }

 private:
  std::shared_ptr<State> state_;
};

ProcessEnvironment::ProcessEnvironment(SimulatedEnvironment& world)
    : world_(world), state_(std::make_shared<State>(State{world.executor(), false, {}})) {}

// What waits may hold executors, and they the state.
ProcessEnvironment::~ProcessEnvironment() {
  while (!state_->waiting.empty()) {
    const absl::AnyInvocable<void()> dropped = std::move(state_->waiting.front());
    state_->waiting.pop_front();
  }
}

asio::any_io_executor ProcessEnvironment::executor() { return Executor(state_); }

asio::any_io_executor ProcessEnvironment::MakeStrand() { return asio::make_strand(executor()); }

void ProcessEnvironment::Pause() { state_->is_paused = true; }

void ProcessEnvironment::Resume() {
  state_->is_paused = false;
  while (!state_->waiting.empty()) {
    asio::post(state_->world, std::move(state_->waiting.front()));
    state_->waiting.pop_front();
  }
}

bool ProcessEnvironment::is_paused() const { return state_->is_paused; }

}  // namespace postkeeper
