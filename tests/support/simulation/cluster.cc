#include "tests/support/simulation/cluster.h"

#include <algorithm>
#include <charconv>

namespace postkeeper {
namespace {

using std::chrono::duration_cast;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr std::string_view kAddressPrefix = "replica-";

}  // namespace

Cluster::Cluster(std::uint64_t seed, bool traces)
    : seed_(seed),
      traces_(traces),
      random_(seed),
      environment_(seed),
      ensemble_(environment_),
      observer_(ensemble_),
      auditor_(ensemble_, layout_, history_, [this](const std::string& what) { Trace(what); }),
      slots_(kSlots) {}

// First everything ends that works in a process, then the processes go, and the world last.
Cluster::~Cluster() {
  for (const ProcessPtr& process : processes_) process->replica->environment().Resume();
  ReleaseHeld();
  environment_.AdvanceBy(seconds(120));
  slots_.clear();
  for (const ProcessPtr& process : processes_) process->replica.reset();
  flights_.clear();
}

void Cluster::Trace(const std::string& what) {
  if (!traces_) return;
  const auto now = duration_cast<microseconds>(environment_.Now().time_since_epoch()).count();
  char time[32];
  std::snprintf(time, sizeof(time), "%12.6f ", static_cast<double>(now) / 1e6 - 3'600'000);
  trace_.push_back(time + what);
}

// ---- Processes

void Cluster::Boot(int slot, std::optional<ProcessId> dead_predecessor) {
  SimulatedReplicaOptions options;
  options.append.in_flight_max = 3;
  options.append.batch_messages_max = 4;
  options.append.segment_batches_max = 6;
  options.cache_bytes = seed_ % 2 == 0 ? 1 : 64 << 10;
  options.dead_predecessor = dead_predecessor;
  options.address = Cat(kAddressPrefix, slot);
  options.waits_for_session = false;
  auto process = std::make_shared<Process>();
  process->slot = slot;
  process->number = static_cast<int>(processes_.size()) + 1;
  process->replica = std::make_unique<SimulatedReplica>(environment_, ensemble_, options);
  processes_.push_back(process);
  slots_[static_cast<std::size_t>(slot)] = process;
  Trace(Cat("replica ", slot, " starts as ", EncodeProcessId(process->replica->process()).substr(0, 6)));
  Spawn(process->replica->environment().executor(), Start(process));
}

Task<void> Cluster::Start(ProcessPtr process) {
  const absl::Status started = co_await process->replica->broker().Start();
  process->is_starting = false;
  if (process->is_dead || process->is_leaving) co_return;
  if (started.ok()) {
    process->is_started = true;
    Trace(Cat("replica ", process->slot, " has started"));
  } else {
    history_.Violate(environment_.Now(), Cat("G1: a replica does not start: ", started.message()));
  }
}

void Cluster::Crash(int slot, zk::SimulatedClient::OnTheWay on_the_way) {
  const ProcessPtr process = at(slot);
  Trace(Cat("replica ", slot, " crashes"));
  process->is_dead = true;
  process->replica->client().Abandon(on_the_way);
  process->replica->environment().Resume();
  BreakFlights([&](const Flight& flight) { return flight.server == process || flight.from == slot; });
  slots_[static_cast<std::size_t>(slot)] = nullptr;
  Spawn(environment_.executor(), End(process, /*returns=*/false));
}

void Cluster::Stop(int slot, bool returns) {
  const ProcessPtr process = at(slot);
  Trace(Cat("replica ", slot, returns ? " restarts in good order" : " leaves"));
  process->is_leaving = true;
  Spawn(environment_.executor(), End(process, returns));
}

Task<void> Cluster::End(ProcessPtr process, bool returns) {
  process->replica->broker().Drain();
  while (process->is_starting) co_await SleepFor(environment_, milliseconds(50));
  const Duration timeout = process->is_dead ? seconds(0) : seconds(10);
  co_await process->replica->Stopping(timeout);
  if (process->is_dead) co_return;
  Trace(Cat("replica ", process->slot, " has ended"));
  process->is_dead = true;
  BreakFlights([&](const Flight& flight) { return flight.server == process || flight.from == process->slot; });
  if (at(process->slot) == process) slots_[static_cast<std::size_t>(process->slot)] = nullptr;
  if (returns && !at(process->slot)) Boot(process->slot);
}

void Cluster::Pause(int slot) {
  Trace(Cat("replica ", slot, " is paused"));
  at(slot)->replica->environment().Pause();
  at(slot)->replica->client().SetReads(false);
}

void Cluster::Resume(int slot) {
  Trace(Cat("replica ", slot, " goes on"));
  at(slot)->replica->environment().Resume();
  at(slot)->replica->client().SetReads(true);
}

void Cluster::SetCutOff(int slot, bool is_cut_off) {
  Trace(Cat("replica ", slot, is_cut_off ? " is cut off from ZooKeeper" : " reaches ZooKeeper again"));
  at(slot)->is_cut_off = is_cut_off;
  at(slot)->replica->client().SetReachable(!is_cut_off);
}

std::vector<int> Cluster::ServingSlots() const {
  std::vector<int> serving;
  for (int slot = 0; slot < kSlots; ++slot) {
    if (at(slot) && at(slot)->is_started && !at(slot)->is_dead && !at(slot)->is_leaving) serving.push_back(slot);
  }
  return serving;
}

void Cluster::EnterLog(const LogEntry& entry) {
  History::Log log;
  log.name = entry.name.id;
  log.is_queue = entry.name.kind == LogKind::kQueue;
  if (log.is_queue) {
    log.lease = std::get<QueueSettings>(entry.settings).lease_duration;
  } else {
    log.topic = std::get<TopicSettings>(entry.settings);
  }
  history_.logs.emplace(entry.uid, std::move(log));
}

void Cluster::CreateLog(const Name& name, const LogSettings& settings) {
  const absl::StatusOr<LogEntry> entry =
      environment_.RunTask(at(ServingSlots().front())->replica->broker().Create(name, settings));
  if (!entry.ok()) return history_.Violate(environment_.Now(), Cat("G1: ", entry.status().message()));
  EnterLog(*entry);
}

std::optional<OwnerView> Cluster::ReadOwnerNow(const Uid& uid) {
  const absl::StatusOr<OwnerView> owner = environment_.RunTask(ReadOwner(observer_, layout_, uid));
  return owner.ok() ? std::optional(*owner) : std::nullopt;
}

void Cluster::ReleaseHeld() {
  for (const ProcessPtr& process : processes_) process->replica->client().ReleaseHeld();
}

void Cluster::StopAll() {
  for (int slot = 0; slot < kSlots; ++slot) {
    if (!at(slot)) continue;
    at(slot)->is_leaving = true;
    environment_.RunTask(End(at(slot), /*returns=*/false));
  }
}

std::int64_t Cluster::corruptions() const {
  std::int64_t sum = 0;
  for (const ProcessPtr& process : processes_) sum += process->replica->context().corruptions;
  return sum;
}

// ---- The network

void Cluster::SetLink(int from, int to, bool is_up) {
  Trace(Cat("replica ", from, is_up ? " reaches" : " does not reach", " replica ", to));
  if (is_up) {
    links_down_.erase({from, to});
    return;
  }
  links_down_.emplace(from, to);
  BreakFlights([&](const Flight& flight) { return flight.from == from && flight.to == to; });
}

bool Cluster::IsLinkUp(int from, int to) const { return !links_down_.contains({from, to}); }

void Cluster::HealNetwork() {
  links_down_.clear();
  relay_traps_.clear();
  client_traps_.clear();
  is_slow_ = false;
}

Duration Cluster::Latency() {
  if (is_slow_ && random_.Chance(0.3)) return random_.Between(milliseconds(10), milliseconds(3000));
  return random_.Between(microseconds(100), microseconds(500));
}

Cluster::Loss Cluster::TakeLoss(bool is_between_replicas) {
  std::vector<Loss>& traps = is_between_replicas ? relay_traps_ : client_traps_;
  if (traps.empty()) return Loss::kNone;
  const Loss loss = traps.back();
  traps.pop_back();
  Trace(Cat(is_between_replicas ? "a relayed call" : "a client's call", " loses its ",
            loss == Loss::kRequest ? "request" : "reply"));
  return loss;
}

ProcessPtr Cluster::Arrive(const std::shared_ptr<Flight>& flight, Loss loss) {
  if (flight->is_over) return nullptr;
  const ProcessPtr& process = at(flight->to);
  if (loss == Loss::kRequest || !process || process->is_dead || !IsLinkUp(flight->from, flight->to)) {
    Land(flight);
    return nullptr;
  }
  flight->server = process;
  return process;
}

void Cluster::BreakFlights(const std::function<bool(const Flight&)>& breaks) {
  std::vector<std::shared_ptr<Flight>> broken;
  for (const auto& flight : flights_) {
    if (breaks(*flight)) broken.push_back(flight);
  }
  for (const auto& flight : broken) Land(flight);
}

void Cluster::Land(const std::shared_ptr<Flight>& flight) {
  if (flight->is_over) return;
  flight->is_over = true;
  flights_.remove(flight);
  if (flight->on_landed) flight->on_landed();
}

std::vector<std::string> Cluster::CallsOpenFor(Duration age) const {
  std::vector<std::string> open;
  for (const Served& served : served_) {
    if (!served.is_bounded || served.process->is_dead || environment_.Now() - served.since < age) continue;
    open.push_back(Cat("G10: a call at replica ", served.process->slot, " is never answered"));
  }
  return open;
}

int Cluster::SlotOf(const std::string& address) const {
  int slot = 0;
  std::from_chars(address.data() + kAddressPrefix.size(), address.data() + address.size(), slot);
  return slot;
}

Task<absl::StatusOr<std::shared_ptr<QueueEngine>>> Cluster::Open(Broker& broker, Name name, QueueEngine*) {
  if (std::shared_ptr<QueueEngine> queue = broker.FindQueue(name)) co_return queue;
  co_return co_await broker.OpenQueue(std::move(name));
}

Task<absl::StatusOr<std::shared_ptr<TopicEngine>>> Cluster::Open(Broker& broker, Name name, TopicEngine*) {
  if (std::shared_ptr<TopicEngine> topic = broker.FindTopic(name)) co_return topic;
  co_return co_await broker.OpenTopic(std::move(name));
}

}  // namespace postkeeper
