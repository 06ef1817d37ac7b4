// Replicas before one simulated ensemble, and the network between them and their clients.
#ifndef POSTKEEPER_TESTS_SUPPORT_SIMULATION_CLUSTER_H_
#define POSTKEEPER_TESTS_SUPPORT_SIMULATION_CLUSTER_H_

#include <cstdio>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "service/call_gate.h"
#include "service/owner_route.h"
#include "service/peers.h"
#include "tests/support/simulated_replica.h"
#include "tests/support/simulation/auditor.h"
#include "tests/support/simulation/history.h"
#include "zkstore/signal.h"

namespace postkeeper {

// One run of postkeeperd. Its objects stay until the end of the history, whatever becomes of it.
struct Process {
  int slot = 0;
  int number = 0;
  std::unique_ptr<SimulatedReplica> replica;
  bool is_starting = true;
  bool is_started = false;  // serves calls
  bool is_leaving = false;  // stops in good order
  bool is_dead = false;
  bool is_cut_off = false;  // from ZooKeeper
};
using ProcessPtr = std::shared_ptr<Process>;

// How it works. A slot is an address at which one process after the other runs. Each has its own session, membership,
// broker and engines, those of postkeeperd; what stands between them and the clients in postkeeperd, gRPC, is modelled
// here: a call is a function that runs at a replica, and finds the owner of its log as service/owner_route.h says. It
// may be lost on its way there or back, be late, or find nobody; a link between two replicas may be down in one
// direction only. A call whose process dies is broken.
//
// One thread. Everything follows from the seed.
class Cluster {
 public:
  static constexpr int kSlots = 5;
  static constexpr int kClient = -1;  // as the end of a link
  static constexpr Duration kCallDeadline = std::chrono::seconds(25);

  Cluster(std::uint64_t seed, bool traces);
  ~Cluster();
  Cluster(const Cluster&) = delete;
  Cluster& operator=(const Cluster&) = delete;

  // ---- The world

  SimulatedRandom& random() { return random_; }
  SimulatedEnvironment& environment() { return environment_; }
  zk::SimulatedEnsemble& ensemble() { return ensemble_; }
  History& history() { return history_; }
  Moment Now() { return history_.Now(environment_.Now()); }
  bool traces() const { return traces_; }
  void Trace(const std::string& what);
  const std::vector<std::string>& trace() const { return trace_; }

  // ---- Processes

  void Boot(int slot, std::optional<ProcessId> dead_predecessor = std::nullopt);
  void Crash(int slot, zk::SimulatedClient::OnTheWay on_the_way);
  // In good order; another one starts in its place when it has ended, if `returns`.
  void Stop(int slot, bool returns);
  void Pause(int slot);
  void Resume(int slot);
  void SetCutOff(int slot, bool is_cut_off);
  // Null: nothing runs there.
  const ProcessPtr& at(int slot) const { return slots_[static_cast<std::size_t>(slot)]; }
  // Those in which something runs and serves.
  std::vector<int> ServingSlots() const;
  // Creates queue or topic; all must be well.
  void CreateLog(const Name& name, const LogSettings& settings);
  void EnterLog(const LogEntry& entry);
  std::optional<OwnerView> ReadOwnerNow(const Uid& uid);
  zk::SimulatedClient& observer() { return observer_; }
  const Layout& layout() const { return layout_; }
  // Everything that held a request back lets it go.
  void ReleaseHeld();
  void StopAll();
  // Damage that an engine believes to have seen, in any process.
  std::int64_t corruptions() const;

  // ---- The network

  void SetLink(int from, int to, bool is_up);
  bool IsLinkUp(int from, int to) const;
  void HealNetwork();
  enum class Loss { kNone, kRequest, kReply };
  // What becomes of the next call: between two replicas, or from a client.
  void LoseNext(bool is_between_replicas, Loss loss) {
    (is_between_replicas ? relay_traps_ : client_traps_).push_back(loss);
  }
  void SetSlow(bool is_slow) { is_slow_ = is_slow; }
  Duration Latency();

  // What a stream's call returns: it lasts as long as the stream, and is relayed once.
  using StreamEnd = absl::StatusOr<bool>;
  // `work` runs on the strand of an engine of `name`, at the process that works for it.
  template <typename Engine, typename Answer>
  using Work = std::function<Task<Answer>(std::shared_ptr<Engine>, ProcessPtr)>;
  // Of a call that appends: perhaps it needs no owner (RouteAppend).
  using MaybeAppend = std::optional<AppendSize>;
  // A client's call to the replica in `slot`. nullopt: broken, or no answer before the deadline. `on_break` is called
  // then. On the world's executor.
  template <typename Engine, typename Answer>
  Task<std::optional<Answer>> Call(int slot, Name name, Work<Engine, Answer> work, Duration deadline,
                                   std::function<void()> on_break, MaybeAppend append = std::nullopt);

  // A stream's call, from a client (kClient) or another replica: it lasts as long as the stream. `work` runs at that
  // very replica, whoever owns the log. nullopt: broken.
  template <typename Engine>
  Task<std::optional<StreamEnd>> OpenStream(Environment& at, int from, int to, Name name, Work<Engine, StreamEnd> work);
  bool CanConnect(int from, int to) const { return slots_[static_cast<std::size_t>(to)] && IsLinkUp(from, to); }
  int SlotOf(const std::string& address) const;
  void CountRelayed() { ++relayed_; }

  // What is open at a replica and should have been answered.
  std::vector<std::string> CallsOpenFor(Duration age) const;
  // Counts how often a call found its way.
  std::int64_t relayed() const { return relayed_; }
  // Counts the appends of replicas that did not own the log.
  std::int64_t appended_elsewhere() const { return appended_elsewhere_; }

 private:
  // A call on its way, as the one who called sees it.
  struct Flight {
    int from = kClient;
    int to = 0;
    ProcessPtr server;  // once it has arrived
    bool is_over = false;
    std::function<void()> on_landed;
  };
  struct Served {
    Instant since{};
    ProcessPtr process;
    bool is_bounded = true;  // false: a stream
  };
  template <typename Engine, typename Answer>
  class Link;

  template <typename Answer>
  Task<std::optional<Answer>> Fly(Environment& at, int from, int to, std::function<Task<Answer>(ProcessPtr)> serve,
                                  Duration deadline);
  template <typename Engine, typename Answer>
  Task<Answer> Serve(ProcessPtr process, Name name, Work<Engine, Answer> work, int hops, MaybeAppend append);
  template <typename Engine, typename Answer>
  Task<Answer> ServeOnStrand(ProcessPtr process, std::shared_ptr<Engine> engine, Name name, Work<Engine, Answer> work,
                             int hops, MaybeAppend append);
  template <typename Answer>
  Task<void> Track(ProcessPtr process, std::function<Task<Answer>(ProcessPtr)> serve, bool is_bounded,
                   std::function<void(Answer)> done);
  // At its server; null: it does not arrive.
  ProcessPtr Arrive(const std::shared_ptr<Flight>& flight, Loss loss);
  Loss TakeLoss(bool is_between_replicas);
  void BreakFlights(const std::function<bool(const Flight&)>& breaks);
  void Land(const std::shared_ptr<Flight>& flight);
  Task<void> Start(ProcessPtr process);
  Task<void> End(ProcessPtr process, bool returns);
  template <typename Engine, typename Answer>
  Task<Answer> ServeHere(ProcessPtr process, Name name, Work<Engine, Answer> work);
  static Task<absl::StatusOr<std::shared_ptr<QueueEngine>>> Open(Broker& broker, Name name, QueueEngine*);
  static Task<absl::StatusOr<std::shared_ptr<TopicEngine>>> Open(Broker& broker, Name name, TopicEngine*);

  const std::uint64_t seed_;
  const bool traces_;
  SimulatedRandom random_;
  SimulatedEnvironment environment_;
  zk::SimulatedEnsemble ensemble_;
  zk::SimulatedClient observer_;
  const Layout layout_{"/postkeeper"};
  History history_;
  std::vector<std::string> trace_;
  Auditor auditor_;
  std::vector<ProcessPtr> slots_;
  std::vector<ProcessPtr> processes_;  // all that ever ran
  std::set<std::pair<int, int>> links_down_;
  std::vector<Loss> relay_traps_;
  std::vector<Loss> client_traps_;
  bool is_slow_ = false;
  std::list<std::shared_ptr<Flight>> flights_;
  std::list<Served> served_;
  std::int64_t relayed_ = 0;
  std::int64_t appended_elsewhere_ = 0;
};

}  // namespace postkeeper

#include "tests/support/simulation/cluster_call.h"  // IWYU pragma: export

#endif  // POSTKEEPER_TESTS_SUPPORT_SIMULATION_CLUSTER_H_
