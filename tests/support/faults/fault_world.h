// What the histories of the fault tests have in common: two replicas before one ensemble, producers, and everything
// that can break, all from one seed.
#ifndef POSTKEEPER_TESTS_SUPPORT_FAULTS_FAULT_WORLD_H_
#define POSTKEEPER_TESTS_SUPPORT_FAULTS_FAULT_WORLD_H_

#include <gtest/gtest-spi.h>
#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "tests/support/simulated_replica.h"
#include "zkstore/owner.h"
#include "zkstore/text.h"

namespace postkeeper {

// How it works. Both replicas serve the same log; one owns it, and the ownership moves between them when processes
// crash, restart, lose their sessions or are cut off, or when the world deposes an owner, which may not know it for a
// while. Clients mostly go to a replica that believes that it owns the log, and sometimes to the other.
//
// A history has 120 steps of work, each followed by a fault or by none; then all is well, and everything must be worked
// off. What is seen is recorded by the derived class, which calls Violate with the promise that does not hold. A failed
// EXPECT in what the world is made of counts as well (RunHistory).
//
// One history per object; one thread.
class FaultWorld {
 public:
  virtual ~FaultWorld() = default;
  FaultWorld(const FaultWorld&) = delete;
  FaultWorld& operator=(const FaultWorld&) = delete;

  // Returns what was violated: empty if every promise held.
  std::vector<std::string> Run();

 protected:
  using OnTheWay = zk::SimulatedClient::OnTheWay;
  static constexpr int kReplicas = 2;

  // What a producer knows of its message.
  enum class Fate { kOpen, kOk, kUnknown, kRefused };

  // A process and those after it in its place.
  struct Slot {
    std::unique_ptr<SimulatedReplica> replica;
    int incarnation = 0;  // what began in an earlier one is never answered
    std::optional<Instant> cut_off_at;
    Instant cut_off_until{};
  };

  struct Append {
    std::vector<std::string> texts;
    std::string request_id;
    WallTime due = NewMessage::kNotDelayed;
    int slot = 0;
    Instant sent_at{};
    std::optional<Instant> returned_at;
    bool was_unknown = false;
    std::shared_ptr<Pending<AppendOutcome>> call;  // null: to be sent again
    // Of a call that was answered OK and is repeated nevertheless.
    std::optional<Appended> first_answer;
  };

  explicit FaultWorld(std::uint64_t seed);

  // ---- What a history adds

  // The process in this slot has started: open the engine. Or it is ending: drop it, and all that waits for it.
  virtual void OnBoot(int slot) = 0;
  virtual void OnEnd(int slot) = 0;
  virtual Uid uid() const = 0;
  // The engine believes that it owns the log.
  virtual bool IsServing(int slot) const = 0;
  virtual std::shared_ptr<Pending<AppendOutcome>> StartAppend(int slot, CheckedAppend append) = 0;
  // What clients do, some of it; time passes.
  virtual void Step() = 0;
  // Once after the faults, before all is worked off.
  virtual void OnHealing() {}
  // Nothing is left to be done.
  virtual bool IsAllDone() = 0;
  // After the end.
  virtual void Judge() = 0;
  // The process in this slot is about to be stopped in good order, or has been.
  virtual void OnBeforeRestart(int) {}
  virtual void OnStopped(int) {}

  // ---- What it may use

  void Violate(const std::string& promise) { violations_.push_back(promise); }
  bool HasViolations() const { return !violations_.empty(); }
  // Printed if POSTKEEPER_FAULT_TRACE is set.
  void Trace(const std::string& what) const;

  int PickSlot();
  // Sends 0 to 3 appends; texts are "m<n>". `delay_max`: of the one in ten that is delayed; zero = none is.
  void SendAppends(Duration delay_max);
  void HearOfAppends();
  // So short in some histories that ids are forgotten.
  Duration request_id_window() const;
  std::optional<OwnerView> ReadOwnerNow();
  // A little, or now and then some seconds. What was cut off long enough is reachable again.
  void PassTime();
  void PassTime(Duration time);
  // Delivered by this replica now: may it still do so?
  void CheckSelfFence(int slot, const std::string& text);

  SimulatedRandom random_;
  SimulatedEnvironment environment_;
  zk::SimulatedEnsemble ensemble_;
  zk::SimulatedClient observer_;
  const Layout layout_{"/postkeeper"};
  const std::uint64_t seed_;
  std::array<Slot, kReplicas> slots_;
  std::vector<std::unique_ptr<SimulatedReplica>> dead_;
  bool is_healing_ = false;
  std::map<std::string, Fate> fates_;  // by text
  std::vector<Append> appends_;        // open
  std::vector<Append> answered_;       // OK
  std::set<std::int64_t> deposed_epochs_;

 private:
  void Boot(int slot, std::optional<ProcessId> dead_predecessor);
  void End(int slot);
  void Crash(int slot);
  void Restart(int slot);
  void DeposeOwner();
  void MakeTrouble();
  void ReleaseHeld();
  void Heal();
  void Settle(const Append& append, Fate fate);
  bool MayRepeat(const Append& append) const;
  void SendAgain(Append& append);
  bool HearOf(Append& append);
  void RepeatSomeAnswered();
  void CheckOldIdsAreDropped();

  std::vector<std::string> violations_;
  bool traces_ = false;
};

// Runs one history from its seed.
template <typename History>
std::vector<std::string> RunHistory(std::uint64_t seed) {
  testing::TestPartResultArray failures;
  std::vector<std::string> violations;
  {
    testing::ScopedFakeTestPartResultReporter reporter(
        testing::ScopedFakeTestPartResultReporter::INTERCEPT_ONLY_CURRENT_THREAD, &failures);
    History history(seed);
    violations = history.Run();
  }
  for (int i = 0; i < failures.size(); ++i) {
    violations.push_back(Cat("the world: ", failures.GetTestPartResult(i).message()));
  }
  return violations;
}

// POSTKEEPER_FAULT_SEEDS seeds (48) from POSTKEEPER_FAULT_FIRST_SEED (1) on.
testing::internal::ParamGenerator<int> FaultSeeds();

}  // namespace postkeeper

#endif  // POSTKEEPER_TESTS_SUPPORT_FAULTS_FAULT_WORLD_H_
