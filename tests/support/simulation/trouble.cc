#include "tests/support/simulation/trouble.h"

#include <utility>

namespace postkeeper {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Duration kClockJumpMax = seconds(20);

bool IsWrite(const zk::Request& request) { return request.kind == zk::Request::Kind::kMulti; }
bool IsAny(const zk::Request&) { return true; }

}  // namespace

std::string_view FaultName(Fault fault) {
  static constexpr std::array<std::string_view, kFaults> kNames = {"a broken connection, requests lost",
                                                                   "a broken connection, requests carried out",
                                                                   "a broken connection, requests late",
                                                                   "a lost request",
                                                                   "a lost reply",
                                                                   "a late request",
                                                                   "an expired session",
                                                                   "a stopped ensemble",
                                                                   "a replica cut off from ZooKeeper",
                                                                   "a deposed owner",
                                                                   "a crash",
                                                                   "a restart",
                                                                   "a leave",
                                                                   "a join",
                                                                   "a pause",
                                                                   "a link down in one direction",
                                                                   "a relayed request lost",
                                                                   "a relayed reply lost",
                                                                   "a client's request lost",
                                                                   "a client's reply lost",
                                                                   "a slow network",
                                                                   "a clock jump"};
  return kNames[static_cast<std::size_t>(fault)];
}

Trouble::Trouble(Cluster& cluster, const SimulationOptions& options)
    : cluster_(cluster), random_(cluster.random()), options_(options) {}

void Trouble::Start() {
  is_active_ = true;
  MakeOneLater();
}

void Trouble::MakeOneLater() {
  cluster_.environment().RunAfter(random_.Between(milliseconds(10), options_.fault_pause_max), [this] {
    if (!is_active_) return;
    MakeOne();
    MakeOneLater();
  });
}

void Trouble::MakeOne() {
  if (random_.Chance(0.3)) cluster_.ReleaseHeld();
  const auto fault = static_cast<Fault>(random_.Below(kFaults));
  cluster_.Trace(Cat("fault: ", FaultName(fault)));
  if (!Make(fault)) return;
  ++fired_[static_cast<std::size_t>(fault)];
  ++fired_in_all_;
}

bool Trouble::Make(Fault fault) {
  const std::vector<int> serving = cluster_.ServingSlots();
  switch (fault) {
    case Fault::kEnsembleStopped:
      return StopEnsemble();
    case Fault::kJoin:
      return Join();
    case Fault::kDeposed:
      return Depose();
    case Fault::kLinkDown:
    case Fault::kRelayRequestLost:
    case Fault::kRelayReplyLost:
    case Fault::kClientRequestLost:
    case Fault::kClientReplyLost:
    case Fault::kSlowNetwork:
      return MakeOnNetwork(fault);
    default:
      break;
  }
  if (serving.empty()) return false;
  const ProcessPtr process = cluster_.at(serving[random_.Below(serving.size())]);
  return fault <= Fault::kSessionExpired ? MakeOnConnection(fault, process) : MakeOnProcess(fault, process);
}

bool Trouble::MakeOnConnection(Fault fault, const ProcessPtr& process) {
  zk::SimulatedClient& client = process->replica->client();
  switch (fault) {
    case Fault::kDisconnectLost:
      client.Disconnect(OnTheWay::kLost);
      return true;
    case Fault::kDisconnectDelivered:
      client.Disconnect(OnTheWay::kDelivered);
      return true;
    case Fault::kDisconnectLate:
      client.Disconnect(OnTheWay::kHeld);
      return true;
    case Fault::kRequestLost:
      client.LoseNext(IsWrite);
      return true;
    case Fault::kReplyLost:
      client.LoseReplyToNext(random_.Chance(0.5) ? IsWrite : IsAny);
      return true;
    case Fault::kRequestHeld:
      client.HoldNext(IsWrite);
      return true;
    default:
      return cluster_.ensemble().ExpireSession(client.session().session_id);
  }
}

bool Trouble::MakeOnProcess(Fault fault, const ProcessPtr& process) {
  const int slot = process->slot;
  const bool is_paused = process->replica->environment().is_paused();
  switch (fault) {
    case Fault::kCutOff:
      return CutOff(process);
    case Fault::kPause:
      return Pause(process);
    case Fault::kCrash: {
      const bool is_known_dead = random_.Chance(0.5);
      const ProcessId dead = process->replica->process();
      cluster_.Crash(slot, static_cast<OnTheWay>(random_.Below(3)));
      BootLater(slot, is_known_dead ? std::optional(dead) : std::nullopt);
      return true;
    }
    case Fault::kRestart:
    case Fault::kLeave: {
      const bool returns = fault == Fault::kRestart;
      if (is_paused || (!returns && cluster_.ServingSlots().size() <= 2)) return false;
      cluster_.Stop(slot, returns);
      return true;
    }
    default: {
      const Duration offset = random_.Between(-kClockJumpMax, kClockJumpMax);
      cluster_.Trace(Cat("the clock of replica ", slot, " jumps to ",
                         std::chrono::duration_cast<milliseconds>(offset).count(), " ms"));
      process->replica->environment().SetWallOffset(offset);
      return true;
    }
  }
}

bool Trouble::MakeOnNetwork(Fault fault) {
  using Loss = Cluster::Loss;
  switch (fault) {
    case Fault::kLinkDown:
      return LinkDown();
    case Fault::kSlowNetwork:
      cluster_.SetSlow(true);
      cluster_.environment().RunAfter(random_.Between(seconds(1), seconds(6)), [this] { cluster_.SetSlow(false); });
      return true;
    case Fault::kRelayRequestLost:
    case Fault::kRelayReplyLost:
      cluster_.LoseNext(true, fault == Fault::kRelayRequestLost ? Loss::kRequest : Loss::kReply);
      return true;
    default:
      cluster_.LoseNext(false, fault == Fault::kClientRequestLost ? Loss::kRequest : Loss::kReply);
      return true;
  }
}

void Trouble::Later(const ProcessPtr& process, Duration delay, std::function<void()> function) {
  cluster_.environment().RunAfter(delay, [this, process, function = std::move(function)] {
    if (is_active_ && !process->is_dead) function();
  });
}

bool Trouble::Pause(const ProcessPtr& process) {
  if (process->replica->environment().is_paused()) return false;
  const int slot = process->slot;
  cluster_.Pause(slot);
  const bool is_short = random_.Chance(0.3);
  const Duration pause =
      is_short ? random_.Between(milliseconds(10), seconds(5)) : random_.Between(seconds(10), seconds(25));
  Later(process, pause, [this, slot] { cluster_.Resume(slot); });
  return true;
}

bool Trouble::CutOff(const ProcessPtr& process) {
  if (process->is_cut_off) return false;
  const int slot = process->slot;
  cluster_.SetCutOff(slot, true);
  Later(process, random_.Between(milliseconds(10), seconds(16)), [this, slot] { cluster_.SetCutOff(slot, false); });
  return true;
}

bool Trouble::StopEnsemble() {
  if (!cluster_.ensemble().is_running()) return false;
  cluster_.Trace("the ensemble stops");
  cluster_.ensemble().Stop();
  cluster_.environment().RunAfter(random_.Between(milliseconds(10), seconds(4)), [this] {
    if (!cluster_.ensemble().is_running()) cluster_.ensemble().Start();
  });
  return true;
}

bool Trouble::Join() {
  for (int slot = 0; slot < Cluster::kSlots; ++slot) {
    if (cluster_.at(slot) || is_booting_[static_cast<std::size_t>(slot)]) continue;
    cluster_.Boot(slot);
    return true;
  }
  return false;
}

void Trouble::BootLater(int slot, std::optional<ProcessId> dead_predecessor) {
  is_booting_[static_cast<std::size_t>(slot)] = true;
  cluster_.environment().RunAfter(random_.Between(milliseconds(10), seconds(8)), [this, slot, dead_predecessor] {
    is_booting_[static_cast<std::size_t>(slot)] = false;
    if (!cluster_.at(slot)) cluster_.Boot(slot, dead_predecessor);
  });
}

bool Trouble::LinkDown() {
  const auto from = static_cast<int>(random_.Below(Cluster::kSlots));
  const auto to = static_cast<int>(random_.Below(Cluster::kSlots));
  if (from == to || !cluster_.at(from) || !cluster_.at(to) || !cluster_.IsLinkUp(from, to)) return false;
  cluster_.SetLink(from, to, false);
  cluster_.environment().RunAfter(random_.Between(seconds(1), seconds(20)), [this, from, to] {
    if (is_active_) cluster_.SetLink(from, to, true);
  });
  return true;
}

// As if an administrator had given the log to somebody else: its owner finds out by itself.
bool Trouble::Depose() {
  std::vector<Uid> logs;
  for (const auto& [uid, log] : cluster_.history().logs) {
    if (!log.deleted) logs.push_back(uid);
  }
  if (logs.empty()) return false;
  Spawn(cluster_.environment().executor(), TakeFromOwner(logs[random_.Below(logs.size())]));
  return true;
}

Task<void> Trouble::TakeFromOwner(Uid uid) {
  const absl::StatusOr<OwnerView> owner = co_await ReadOwner(cluster_.observer(), cluster_.layout(), uid);
  if (!owner.ok() || owner->state != OwnerView::State::kProcess) co_return;
  std::vector<zk::Op> ops;
  ops.push_back(LetGoOp(cluster_.layout(), uid, *owner));
  co_await cluster_.observer().Multi(std::move(ops));
}

void Trouble::Heal() {
  is_active_ = false;
  cluster_.Trace("all is well from here on");
  if (!cluster_.ensemble().is_running()) cluster_.ensemble().Start();
  for (int slot = 0; slot < Cluster::kSlots; ++slot) {
    const ProcessPtr process = cluster_.at(slot);
    if (!process) continue;
    if (process->replica->environment().is_paused()) cluster_.Resume(slot);
    if (process->is_cut_off) cluster_.SetCutOff(slot, false);
    process->replica->environment().SetWallOffset(Duration::zero());
  }
  cluster_.HealNetwork();
  cluster_.ReleaseHeld();
  if (cluster_.ServingSlots().empty() && !cluster_.at(0)) cluster_.Boot(0);
}

}  // namespace postkeeper
