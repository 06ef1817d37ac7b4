#include "tests/support/faults/fault_world.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "zkstore/errors.h"

namespace postkeeper {
namespace {

using std::chrono::duration_cast;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr int kSteps = 120;
constexpr int kHealingStepsMax = 400;

bool IsWrite(const zk::Request& request) { return request.kind == zk::Request::Kind::kMulti; }
bool IsAny(const zk::Request&) { return true; }

}  // namespace

testing::internal::ParamGenerator<int> FaultSeeds() {
  const auto number = [](const char* name, int otherwise) {
    const char* wanted = std::getenv(name);
    return wanted == nullptr ? otherwise : std::max(1, std::atoi(wanted));
  };
  const int first = number("POSTKEEPER_FAULT_FIRST_SEED", 1);
  return testing::Range(first, first + number("POSTKEEPER_FAULT_SEEDS", 48));
}

FaultWorld::FaultWorld(std::uint64_t seed)
    : random_(seed),
      environment_(seed),
      ensemble_(environment_),
      observer_(ensemble_),
      seed_(seed),
      traces_(std::getenv("POSTKEEPER_FAULT_TRACE") != nullptr) {}

void FaultWorld::Trace(const std::string& what) const {
  if (!traces_) return;
  const auto now = duration_cast<microseconds>(environment_.Now().time_since_epoch()).count();
  std::fprintf(stderr, "%12.6f %s\n", static_cast<double>(now) / 1e6, what.c_str());
}

std::vector<std::string> FaultWorld::Run() {
  for (int slot = 0; slot < kReplicas; ++slot) Boot(slot, std::nullopt);
  for (int step = 0; step < kSteps && !HasViolations(); ++step) {
    Step();
    MakeTrouble();
  }
  if (!HasViolations()) Heal();  // what follows from the first one says nothing
  for (int slot = 0; slot < kReplicas; ++slot) {
    OnEnd(slot);
    ++slots_[static_cast<std::size_t>(slot)].incarnation;
  }
  for (const auto& dead : dead_) {
    if (dead->context().corruptions > 0) Violate("G2: a process that ended met damage that was none");
  }
  for (Slot& slot : slots_) {
    if (slot.replica->context().corruptions > 0) Violate("G2: a process met damage that was none");
    slot.replica.reset();
  }
  dead_.clear();
  for (const std::string& violation : violations_) Trace(violation);
  return violations_;
}

// All is well again: everything is worked off.
void FaultWorld::Heal() {
  Trace("healing");
  is_healing_ = true;
  for (Slot& slot : slots_) {
    slot.cut_off_at.reset();
    slot.replica->client().SetReachable(true);
  }
  ReleaseHeld();
  OnHealing();
  bool is_all_done = false;
  for (int step = 0; step < kHealingStepsMax && !is_all_done && !HasViolations(); ++step) {
    Step();
    if (step % 20 != 0) continue;
    ReleaseHeld();
    PassTime(seconds(5));
    is_all_done = appends_.empty() && IsAllDone();
  }
  if (HasViolations()) return;
  if (!appends_.empty()) Violate("G10: an append is never answered");
  Judge();
  CheckOldIdsAreDropped();
}

void FaultWorld::CheckOldIdsAreDropped() {
  if (HasViolations() || request_id_window() > seconds(60)) return;
  PassTime(request_id_window() + seconds(60));
  const zk::Response left = environment_.RunTask(observer_.Children(layout_.Dedups(uid())));
  if (left.code != zk::Code::kOk || !left.children.empty()) Violate("G10: ids past the window are not dropped");
}

Duration FaultWorld::request_id_window() const { return seed_ % 3 == 0 ? seconds(60) : std::chrono::minutes(10); }

// ---- Processes

void FaultWorld::Boot(int index, std::optional<ProcessId> dead_predecessor) {
  Slot& slot = slots_[static_cast<std::size_t>(index)];
  SimulatedReplicaOptions options;
  options.append.in_flight_max = 3;
  options.append.batch_messages_max = 4;
  options.append.segment_batches_max = 6;
  options.limits.request_id_window = request_id_window();
  options.cache_bytes = seed_ % 2 == 0 ? 1 : 64 << 10;
  options.dead_predecessor = dead_predecessor;
  slot.replica = std::make_unique<SimulatedReplica>(environment_, ensemble_, options);
  slot.cut_off_at.reset();
  if (!slot.replica->Start().ok()) Violate("a replica does not start");
  Trace(Cat("replica ", index, " starts"));
  OnBoot(index);
}

// What the process was asked for and has not answered is never answered. A call with a request_id is sent again.
void FaultWorld::End(int index) {
  std::erase_if(appends_, [&](Append& append) {
    if (append.slot != index || !append.call) return false;
    append.was_unknown = true;
    append.call.reset();
    if (MayRepeat(append)) return false;
    Settle(append, Fate::kUnknown);
    return true;
  });
  OnEnd(index);
  ++slots_[static_cast<std::size_t>(index)].incarnation;
}

void FaultWorld::Crash(int index) {
  Slot& slot = slots_[static_cast<std::size_t>(index)];
  Trace(Cat("replica ", index, " crashes"));
  const ProcessId dead = slot.replica->process();
  slot.replica->Crash(static_cast<OnTheWay>(random_.Below(3)));
  End(index);
  dead_.push_back(std::move(slot.replica));
  Boot(index, random_.Chance(0.5) ? std::optional(dead) : std::nullopt);
}

void FaultWorld::Restart(int index) {
  Slot& slot = slots_[static_cast<std::size_t>(index)];
  Trace(Cat("replica ", index, " stops"));
  OnBeforeRestart(index);
  slot.replica->Stop();
  HearOfAppends();
  OnStopped(index);
  End(index);
  dead_.push_back(std::move(slot.replica));
  Boot(index, std::nullopt);
}

// As if an administrator had given the log to somebody else: its owner finds out by itself.
void FaultWorld::DeposeOwner() {
  const std::optional<OwnerView> owner = ReadOwnerNow();
  if (!owner || owner->state != OwnerView::State::kProcess) return;
  std::vector<zk::Op> ops;
  ops.push_back(LetGoOp(layout_, uid(), *owner));
  deposed_epochs_.insert(owner->epoch);
  const zk::Response deposed = environment_.RunTask(observer_.Multi(std::move(ops)));
  Trace(Cat("the owner of epoch ", owner->epoch, " is deposed: ", zk::CodeName(deposed.code)));
}

std::optional<OwnerView> FaultWorld::ReadOwnerNow() {
  const absl::StatusOr<OwnerView> owner = environment_.RunTask(ReadOwner(observer_, layout_, uid()));
  return owner.ok() ? std::optional(*owner) : std::nullopt;
}

// ---- Faults

void FaultWorld::ReleaseHeld() {
  for (Slot& slot : slots_) slot.replica->client().ReleaseHeld();
  for (const auto& dead : dead_) dead->client().ReleaseHeld();
}

void FaultWorld::MakeTrouble() {
  const int index = random_.Chance(0.2) ? static_cast<int>(random_.Below(kReplicas)) : PickSlot();
  Slot& slot = slots_[static_cast<std::size_t>(index)];
  zk::SimulatedClient& client = slot.replica->client();
  const std::uint64_t dice = random_.Below(24);
  if (dice < 10) Trace(Cat("fault ", dice, " on replica ", index));
  switch (dice) {
    case 0:
    case 1:
      return client.Disconnect(static_cast<OnTheWay>(random_.Below(3)));
    case 2:
      ensemble_.ExpireSession(client.session().session_id);
      return;
    case 3:
      ensemble_.Stop();
      environment_.AdvanceBy(milliseconds(random_.Below(4000)));
      return ensemble_.Start();
    case 4:
      return client.LoseNext(IsWrite);
    case 5:
      return client.LoseReplyToNext(IsWrite);
    case 6:
      return client.LoseReplyToNext(IsAny);
    case 7:
      return client.HoldNext(IsWrite);
    case 8:
      if (slot.cut_off_at) return;
      slot.cut_off_at = environment_.Now();
      slot.cut_off_until = environment_.Now() + milliseconds(random_.Below(16'000));
      return client.SetReachable(false);
    case 9:
      return DeposeOwner();
    case 10:
      if (random_.Chance(0.5)) return Crash(index);
      return;
    case 11:
      if (random_.Chance(0.3)) return Restart(index);
      return;
    case 12:
      for (const auto& dead : dead_) dead->client().ReleaseHeld();
      return;
    default:
      client.ReleaseHeld();
      return;
  }
}

void FaultWorld::PassTime() {
  PassTime(microseconds(random_.Chance(0.1) ? random_.Below(6'000'000) : random_.Below(3'000)));
}

void FaultWorld::PassTime(Duration time) {
  const Instant until = environment_.Now() + time;
  for (Slot& slot : slots_) {
    if (!slot.cut_off_at || slot.cut_off_until > until) continue;
    environment_.AdvanceBy(std::max<Duration>(slot.cut_off_until - environment_.Now(), Duration::zero()));
    slot.cut_off_at.reset();
    slot.replica->client().SetReachable(true);
  }
  environment_.AdvanceBy(std::max<Duration>(until - environment_.Now(), Duration::zero()));
}

void FaultWorld::CheckSelfFence(int index, const std::string& text) {
  const Slot& slot = slots_[static_cast<std::size_t>(index)];
  if (!slot.cut_off_at) return;
  const Duration age = environment_.Now() - *slot.cut_off_at;
  if (age > zk::SimulatedClientOptions().session_timeout * 2 / 3 + milliseconds(100)) {
    Violate(Cat("G3: ", text, " is delivered by a replica that ZooKeeper has not answered for ",
                duration_cast<milliseconds>(age).count(), " ms"));
  }
}

// ---- Producers

int FaultWorld::PickSlot() {
  if (random_.Chance(0.1)) return static_cast<int>(random_.Below(kReplicas));
  const int first = static_cast<int>(random_.Below(kReplicas));
  for (int i = 0; i < kReplicas; ++i) {
    if (IsServing((first + i) % kReplicas)) return (first + i) % kReplicas;
  }
  return first;
}

void FaultWorld::SendAppends(Duration delay_max) {
  if (is_healing_) return;
  for (std::uint64_t i = random_.Below(4); i > 0; --i) {
    Append append;
    append.slot = PickSlot();
    const std::uint64_t count = 1 + random_.Below(3);
    for (std::uint64_t j = 0; j < count; ++j) {
      append.texts.push_back(Cat("m", fates_.size()));
      fates_[append.texts.back()] = Fate::kOpen;
    }
    if (random_.Chance(0.4)) append.request_id = append.texts.front();
    if (delay_max > Duration::zero() && random_.Chance(0.1)) {
      const auto delay_max_ms = static_cast<std::uint64_t>(duration_cast<milliseconds>(delay_max).count());
      append.due = environment_.WallNow() + milliseconds(random_.Below(delay_max_ms));
    }
    append.sent_at = environment_.Now();
    append.call = StartAppend(append.slot, MakeAppend(append.texts, append.request_id, append.due));
    appends_.push_back(std::move(append));
  }
}

void FaultWorld::Settle(const Append& append, Fate fate) {
  if (append.first_answer) return;                                          // that of the first call counts
  if (append.was_unknown && fate == Fate::kRefused) fate = Fate::kUnknown;  // the repeat was; the first may be in
  for (const std::string& text : append.texts) fates_[text] = fate;
}

// The service waits up to 15 s before it looks whether it knows the id.
bool FaultWorld::MayRepeat(const Append& append) const {
  return !append.request_id.empty() && environment_.Now() + seconds(20) < append.sent_at + request_id_window();
}

void FaultWorld::SendAgain(Append& append) {
  append.slot = PickSlot();
  append.call = StartAppend(append.slot, MakeAppend(append.texts, append.request_id, append.due));
}

void FaultWorld::HearOfAppends() {
  for (std::size_t i = 0; i < appends_.size();) {
    if (HearOf(appends_[i])) {
      appends_.erase(appends_.begin() + static_cast<std::ptrdiff_t>(i));
    } else {
      ++i;
    }
  }
  RepeatSomeAnswered();
}

// True if nothing more is to be heard of it.
bool FaultWorld::HearOf(Append& append) {
  if (append.call && !append.call->is_done()) return false;
  const bool is_lost = !append.call;
  const absl::Status status = is_lost ? absl::UnknownError("its process has ended") : append.call->result->status();
  const bool is_unknown = is_lost || HasReason(status, Reason::kOutcomeUnknown);
  append.was_unknown |= is_unknown;
  if (!status.ok() && MayRepeat(append) && (append.was_unknown || random_.Chance(0.3))) {
    SendAgain(append);
    return false;
  }
  if (append.first_answer) {
    const bool is_same = !status.ok() || ((*append.call->result)->MessageId(0) == append.first_answer->MessageId(0) &&
                                          (*append.call->result)->count == append.first_answer->count);
    if (!is_same) Violate(Cat("G4: the repeat of ", append.texts.front(), " got another answer"));
    return true;
  }
  append.returned_at = environment_.Now();
  Settle(append, status.ok() ? Fate::kOk : is_unknown ? Fate::kUnknown : Fate::kRefused);
  if (status.ok()) answered_.push_back(append);
  return true;
}

// As clients do that have not heard the answer.
void FaultWorld::RepeatSomeAnswered() {
  if (is_healing_ || answered_.empty() || !random_.Chance(0.3)) return;
  Append repeat = answered_[random_.Below(answered_.size())];
  if (!MayRepeat(repeat)) return;
  repeat.first_answer = **repeat.call->result;
  Trace(Cat("the call of ", repeat.texts.front(), " is repeated"));
  SendAgain(repeat);
  appends_.push_back(std::move(repeat));
}

}  // namespace postkeeper
