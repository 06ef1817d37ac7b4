#include "zkstore/simulated_environment.h"

#include <asio/strand.hpp>
#include <cstring>

namespace postkeeper {
namespace {

// Neither clock starts at 0, so that a forgotten initial value does not pass for a time.
constexpr Instant kStart{std::chrono::hours(1000)};
constexpr WallTime kWallStart{std::chrono::milliseconds(1'767'225'600'000)};  // 2026-01-01 00:00 UTC

std::uint64_t RotateLeft(std::uint64_t value, int bits) { return value << bits | value >> (64 - bits); }

}  // namespace

SimulatedRandom::SimulatedRandom(std::uint64_t seed) {
  for (std::uint64_t& word : state_) {
    seed += 0x9e3779b97f4a7c15;
    std::uint64_t mixed = seed;
    mixed = (mixed ^ mixed >> 30) * 0xbf58476d1ce4e5b9;
    mixed = (mixed ^ mixed >> 27) * 0x94d049bb133111eb;
    word = mixed ^ mixed >> 31;
  }
}

std::uint64_t SimulatedRandom::Next() {
  std::uint64_t result = RotateLeft(state_[1] * 5, 7) * 9;
  std::uint64_t shifted = state_[1] << 17;
  state_[2] ^= state_[0];
  state_[3] ^= state_[1];
  state_[1] ^= state_[2];
  state_[0] ^= state_[3];
  state_[2] ^= shifted;
  state_[3] = RotateLeft(state_[3], 45);
  return result;
}

// The remainder favours small numbers by less than one in 2^40 for the bounds that tests use.
std::uint64_t SimulatedRandom::Below(std::uint64_t bound) { return Next() % bound; }

Duration SimulatedRandom::Between(Duration min, Duration max) {
  if (max <= min) return min;
  return min + Duration(Below(static_cast<std::uint64_t>((max - min).count()) + 1));
}

bool SimulatedRandom::Chance(double probability) { return static_cast<double>(Next() >> 11) * 0x1p-53 < probability; }

// Its state outlives it, since a run of its function may wait in the executor when the timer goes.
class SimulatedEnvironment::SimulatedTimer : public Timer {
 public:
  SimulatedTimer(SimulatedEnvironment& environment, asio::any_io_executor executor)
      : state_(std::make_shared<State>(State{&environment, std::move(executor)})) {}
  ~SimulatedTimer() override { Cancel(); }

  void Start(Duration delay, std::function<void()> function) override {
    Cancel();
    state_->function = std::move(function);
    std::uint64_t start = state_->starts;
    state_->alarm = state_->environment->AddAlarm(delay, [run = PendingRun(state_, start)]() mutable {
      run.state->alarm.reset();
      asio::any_io_executor executor = run.state->executor;
      asio::post(executor, [run = std::move(run)] { Run(*run.state, run.start); });
    });
  }

  void Cancel() override {
    ++state_->starts;
    // What the function holds may be this timer, or may start it again: it is destroyed when all is set.
    std::function<void()> cancelled = std::move(state_->function);
    state_->function = nullptr;
    if (state_->alarm) {
      auto alarm = state_->environment->alarms_.extract(*state_->alarm);
      state_->alarm.reset();
    }
  }

 private:
  struct State {
    SimulatedEnvironment* environment;
    asio::any_io_executor executor;
    std::uint64_t starts = 0;  // starts and cancels so far; tells an old run from the one that is wanted
    std::function<void()> function;
    std::optional<AlarmKey> alarm;
  };

  // Says that the function is to run. When it goes without that having happened, because the environment goes, so does
  // the function: it may own the timer (SleepFor does that), and would otherwise never be freed.
  struct PendingRun {
    PendingRun(std::shared_ptr<State> state_in, std::uint64_t start_in) : state(std::move(state_in)), start(start_in) {}
    PendingRun(PendingRun&&) = default;
    ~PendingRun() {
      if (!state || state->starts != start) return;
      std::function<void()> function = std::move(state->function);
      state->function = nullptr;
    }

    std::shared_ptr<State> state;
    std::uint64_t start;
  };

  static void Run(State& state, std::uint64_t start) {
    if (state.starts != start || !state.function) return;
    std::function<void()> function = std::move(state.function);
    state.function = nullptr;
    function();
  }

  std::shared_ptr<State> state_;
};

SimulatedEnvironment::SimulatedEnvironment(std::uint64_t seed) : random_(seed), now_(kStart), io_(1) {}

SimulatedEnvironment::~SimulatedEnvironment() {
  // One by one, each out of the map before it is destroyed: its end may end other timers, which leave the map too.
  while (!alarms_.empty()) alarms_.extract(alarms_.begin());
}

WallTime SimulatedEnvironment::WallNow() const {
  return kWallStart + std::chrono::floor<std::chrono::milliseconds>(now_ - kStart + wall_offset_);
}

void SimulatedEnvironment::FillRandom(std::span<std::uint8_t> bytes) {
  while (!bytes.empty()) {
    std::uint64_t value = random_.Next();
    std::size_t taken = std::min(bytes.size(), sizeof(value));
    std::memcpy(bytes.data(), &value, taken);
    bytes = bytes.subspan(taken);
  }
}

asio::any_io_executor SimulatedEnvironment::executor() { return io_.get_executor(); }

asio::any_io_executor SimulatedEnvironment::MakeStrand() { return asio::make_strand(io_); }

std::unique_ptr<Timer> SimulatedEnvironment::MakeTimer(asio::any_io_executor executor) {
  return std::make_unique<SimulatedTimer>(*this, std::move(executor));
}

void SimulatedEnvironment::RunAfter(Duration delay, absl::AnyInvocable<void()> function) {
  AddAlarm(delay, std::move(function));
}

SimulatedEnvironment::AlarmKey SimulatedEnvironment::AddAlarm(Duration delay, absl::AnyInvocable<void()> alarm) {
  Instant time = now_ + std::max(delay, Duration(0));
  if (time < now_) time = Instant::max();  // overflow: never
  AlarmKey key{time, alarms_made_++};
  alarms_.emplace(key, std::move(alarm));
  return key;
}

bool SimulatedEnvironment::RunNextAlarm(Instant until) {
  if (alarms_.empty() || alarms_.begin()->first.time > until) return false;
  auto alarm = alarms_.extract(alarms_.begin());
  now_ = std::max(now_, alarm.key().time);
  asio::post(io_, std::move(alarm.mapped()));
  return true;
}

void SimulatedEnvironment::RunUntilIdle() {
  int steps = 0;
  do {
    io_.restart();
    while (io_.poll_one() > 0) {
      if (++steps < kStepsAtOneInstantMax) continue;
      std::fprintf(stderr, "SimulatedEnvironment: still busy after %d steps without time passing\n", steps);
      std::abort();
    }
  } while (RunNextAlarm(now_));
}

void SimulatedEnvironment::AdvanceBy(Duration duration) {
  RunUntil([] { return false; }, duration);
}

bool SimulatedEnvironment::RunUntil(const std::function<bool()>& predicate, Duration duration_max) {
  Instant end = now_ + duration_max;
  while (true) {
    RunUntilIdle();
    if (predicate()) return true;
    if (RunNextAlarm(end)) continue;
    now_ = std::max(now_, end);
    return false;
  }
}

}  // namespace postkeeper
