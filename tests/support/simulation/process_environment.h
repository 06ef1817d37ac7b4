// What one simulated process sees of the simulated world.
#ifndef POSTKEEPER_TESTS_SUPPORT_SIMULATION_PROCESS_ENVIRONMENT_H_
#define POSTKEEPER_TESTS_SUPPORT_SIMULATION_PROCESS_ENVIRONMENT_H_

#include <memory>

#include "zkstore/simulated_environment.h"

namespace postkeeper {

// The world's time and randomness, a wall clock of its own, and executors that can be stopped, as SIGSTOP stops a
// process: what is ready then waits, its timers' alarms too, and runs when the process goes on, with time moved on.
//
// One thread, that of the world, which outlives it.
class ProcessEnvironment : public Environment {
 public:
  explicit ProcessEnvironment(SimulatedEnvironment& world);
  ~ProcessEnvironment() override;

  Instant Now() const override { return world_.Now(); }
  WallTime WallNow() const override {
    return world_.WallNow() + std::chrono::floor<std::chrono::milliseconds>(wall_offset_);
  }
  void FillRandom(std::span<std::uint8_t> bytes) override { world_.FillRandom(bytes); }
  asio::any_io_executor executor() override;
  asio::any_io_executor MakeStrand() override;
  std::unique_ptr<Timer> MakeTimer(asio::any_io_executor executor) override {
    return world_.MakeTimer(std::move(executor));
  }

  void Pause();
  void Resume();
  bool is_paused() const;
  // How far its wall clock is from the world's.
  void SetWallOffset(Duration offset) { wall_offset_ = offset; }

 private:
  class Executor;
  struct State;

  SimulatedEnvironment& world_;
  const std::shared_ptr<State> state_;
  Duration wall_offset_{};
};

}  // namespace postkeeper

#endif  // POSTKEEPER_TESTS_SUPPORT_SIMULATION_PROCESS_ENVIRONMENT_H_
