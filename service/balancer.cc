#include "service/balancer.h"

#include <algorithm>
#include <asio/post.hpp>
#include <utility>

#include "zkstore/rendezvous.h"

namespace postkeeper {
namespace {

constexpr Duration kHandOverTimeout = std::chrono::seconds(5);
// Until the replica that should take it must have, or nobody will.
constexpr Duration kAcceptTimeout = LogOwnership::kFreeForAnyone + std::chrono::seconds(1);

}  // namespace

Balancer::Balancer(Environment& environment, std::function<std::vector<LogHandle>()> logs, ProcessId self,
                   Duration probation)
    : environment_(environment),
      logs_(std::move(logs)),
      self_(self),
      probation_(probation),
      strand_(environment.MakeStrand()),
      wake_(environment, strand_) {}

void Balancer::OnJoin(const ProcessId& replica) {
  absl::MutexLock lock(&mutex_);
  replicas_.push_back({replica, environment_.Now()});
}

void Balancer::OnLeave(const ProcessId& replica) {
  absl::MutexLock lock(&mutex_);
  std::erase_if(replicas_, [&](const Candidate& candidate) { return candidate.replica == replica; });
}

bool Balancer::IsFirstChoice(const Uid& log, const OwnerView& free) const {
  std::vector<ProcessId> others;
  {
    absl::MutexLock lock(&mutex_);
    for (const Candidate& candidate : replicas_) {
      if (candidate.replica != free.process) others.push_back(candidate.replica);
    }
  }
  return ChooseOwner(log, others).value_or(self_) == self_;
}

void Balancer::Start() { Spawn(strand_, Run(shared_from_this())); }

void Balancer::Stop() {
  asio::post(strand_, [self = shared_from_this()] {
    self->is_stopped_ = true;
    self->wake_.Notify();
  });
}

Task<void> Balancer::Run(std::shared_ptr<Balancer> self) {
  while (!is_stopped_) {
    co_await wake_.WaitFor(kInterval);
    bool goes_on = true;
    while (goes_on && !is_stopped_) {
      std::vector<LogHandle> misplaced = Misplaced();
      goes_on = !misplaced.empty();
      if (goes_on) goes_on = co_await HandOver(self, std::move(misplaced));
    }
  }
}

// At most kAtATime of the logs that this replica owns and another one should.
std::vector<LogHandle> Balancer::Misplaced() {
  const Instant now = environment_.Now();
  std::vector<ProcessId> replicas;
  std::vector<ProcessId> proven;
  {
    absl::MutexLock lock(&mutex_);
    for (const Candidate& candidate : replicas_) {
      replicas.push_back(candidate.replica);
      if (now - candidate.since >= probation_) proven.push_back(candidate.replica);
    }
  }
  std::vector<LogHandle> misplaced;
  absl::flat_hash_map<Uid, Instant> stays_until;
  for (const LogHandle& log : logs_()) {
    if (!log.is_serving()) continue;
    const auto known = stays_until_.find(log.uid());
    const Instant until = known == stays_until_.end() ? now + probation_ : known->second;
    stays_until[log.uid()] = until;
    const std::optional<ProcessId> chosen = ChooseOwner(log.uid(), replicas);
    if (!chosen || *chosen == self_ || std::ranges::find(proven, *chosen) == proven.end()) continue;
    if (until <= now && misplaced.size() < kAtATime) misplaced.push_back(log);
  }
  stays_until_ = std::move(stays_until);
  for (const LogHandle& log : misplaced) stays_until_[log.uid()] = now + kRest;
  return misplaced;
}

struct Balancer::Round {
  explicit Round(Environment& environment, asio::any_io_executor strand) : ended(environment, std::move(strand)) {}
  std::size_t under_way = 0;
  bool is_accepted = true;
  Signal ended;
};

// All at once. True if each of them has another owner now.
Task<bool> Balancer::HandOver(std::shared_ptr<Balancer> self, std::vector<LogHandle> logs) {
  const auto round = std::make_shared<Round>(environment_, strand_);
  round->under_way = logs.size();
  for (const LogHandle& log : logs) Spawn(log.strand(), HandOverOne(self, log, round));
  while (round->under_way > 0) co_await round->ended.Wait();
  co_return round->is_accepted;
}

Task<void> Balancer::HandOverOne(std::shared_ptr<Balancer> self, LogHandle log, std::shared_ptr<Round> round) {
  co_await log.HandOver(kHandOverTimeout);
  const std::optional<std::string> owner = co_await log.FindOwner(kAcceptTimeout);
  asio::post(strand_, [self, round, is_accepted = owner.has_value()] {
    --round->under_way;
    if (!is_accepted) round->is_accepted = false;
    round->ended.Notify();
  });
}

}  // namespace postkeeper
