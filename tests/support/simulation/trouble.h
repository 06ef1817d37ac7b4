// Everything that can break in a simulated cluster.
#ifndef POSTKEEPER_TESTS_SUPPORT_SIMULATION_TROUBLE_H_
#define POSTKEEPER_TESTS_SUPPORT_SIMULATION_TROUBLE_H_

#include <array>
#include <cstdint>
#include <string_view>

#include "tests/support/simulation/cluster.h"
#include "tests/support/simulation/options.h"

namespace postkeeper {

enum class Fault {
  kDisconnectLost,       // the connection to ZooKeeper breaks, and what was on its way is lost,
  kDisconnectDelivered,  // ... or carried out unheard,
  kDisconnectLate,       // ... or carried out later
  kRequestLost,          // the next write is lost on its way to ZooKeeper
  kReplyLost,            // ... or its reply
  kRequestHeld,          // the next write is late
  kSessionExpired,
  kEnsembleStopped,   // for a while
  kCutOff,            // a replica does not reach ZooKeeper for a while
  kDeposed,           // somebody takes a log away from its owner, which is not told
  kCrash,             // another process starts in its place later
  kRestart,           // in good order
  kLeave,             // in good order, for good
  kJoin,              // one more replica
  kPause,             // a process stands still, often for longer than its session lives, and goes on with old memory
  kLinkDown,          // one replica does not reach another one; the other direction may work
  kRelayRequestLost,  // between replicas
  kRelayReplyLost,
  kClientRequestLost,  // between a client and a replica
  kClientReplyLost,
  kSlowNetwork,  // calls take up to seconds
  kClockJump,    // the wall clock of one replica
  kCount,
};
inline constexpr auto kFaults = static_cast<std::size_t>(Fault::kCount);
std::string_view FaultName(Fault fault);

// Makes a fault from time to time, each drawn from the cluster's random source, and heals what does not heal by
// itself.
class Trouble {
 public:
  Trouble(Cluster& cluster, const SimulationOptions& options);

  void Start();
  // No more faults, and all is well. At least one replica runs.
  void Heal();

  const std::array<std::int64_t, kFaults>& fired() const { return fired_; }
  std::int64_t fired_in_all() const { return fired_in_all_; }

 private:
  using OnTheWay = zk::SimulatedClient::OnTheWay;

  void MakeOneLater();
  void MakeOne();
  // False: it makes no sense at the moment.
  bool Make(Fault fault);
  bool MakeOnConnection(Fault fault, const ProcessPtr& process);
  bool MakeOnProcess(Fault fault, const ProcessPtr& process);
  bool MakeOnNetwork(Fault fault);
  bool Join();
  bool Pause(const ProcessPtr& process);
  bool CutOff(const ProcessPtr& process);
  bool StopEnsemble();
  bool LinkDown();
  bool Depose();
  Task<void> TakeFromOwner(Uid uid);
  void BootLater(int slot, std::optional<ProcessId> dead_predecessor);
  // Unless the process has ended by then.
  void Later(const ProcessPtr& process, Duration delay, std::function<void()> function);

  Cluster& cluster_;
  SimulatedRandom& random_;
  const SimulationOptions options_;
  bool is_active_ = false;
  std::array<std::int64_t, kFaults> fired_{};
  std::int64_t fired_in_all_ = 0;
  std::array<bool, Cluster::kSlots> is_booting_{};
};

}  // namespace postkeeper

#endif  // POSTKEEPER_TESTS_SUPPORT_SIMULATION_TROUBLE_H_
