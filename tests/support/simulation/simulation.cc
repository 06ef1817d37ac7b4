#include "tests/support/simulation/simulation.h"

#include <gtest/gtest-spi.h>
#include <gtest/gtest.h>

#include "tests/support/simulation/checkers.h"
#include "tests/support/simulation/clients.h"

namespace postkeeper {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

void CreateLogs(Cluster& cluster, const SimulationOptions& options) {
  QueueSettings queue;
  queue.lease_duration = seconds(5);
  queue.retry_backoff = milliseconds(100);
  queue.retry_backoff_max = seconds(2);
  for (int i = 0; i < options.queues; ++i) {
    // One in which no replica may append without its owner.
    queue.max_messages = i == 1 ? AppendRoom::kPart - 1 : QueueSettings().max_messages;
    cluster.CreateLog(SimulatedReplica::QueueName(Cat("q", i)), queue);
  }
  for (int i = 0; i < options.topics; ++i) {
    TopicSettings topic;
    // By their number, or by their age.
    if (i % 2 == 0) topic.max_messages = 40;
    if (i % 2 != 0) topic.retention = seconds(20);
    cluster.CreateLog(SimulatedReplica::TopicName(Cat("t", i)), topic);
  }
}

// What is left in a queue, as its owner says.
void CheckNothingIsLeft(Cluster& cluster) {
  for (const auto& [uid, log] : cluster.history().logs) {
    if (!log.is_queue || log.deleted) continue;
    const std::optional<OwnerView> owner = cluster.ReadOwnerNow(uid);
    std::int64_t left = -1;
    std::string why;
    for (int slot : cluster.ServingSlots()) {
      SimulatedReplica& replica = *cluster.at(slot)->replica;
      if (!owner || owner->state != OwnerView::State::kProcess || replica.process() != owner->process) continue;
      const auto queue = replica.broker().FindQueue(SimulatedReplica::QueueName(log.name));
      const auto stats = RunOn(cluster.environment(), queue, queue->GetStats());
      left = stats.ok() ? stats->counts.total() : -1;
      if (!stats.ok()) why = std::string(stats.status().message());
    }
    const Instant now = cluster.environment().Now();
    if (left < 0) cluster.history().Violate(now, Cat("G2: nobody works for ", log.name, why.empty() ? "" : ": ", why));
    if (left > 0) cluster.history().Violate(now, Cat("G2: ", left, " messages of ", log.name, " are never delivered"));
  }
}

void Run(Cluster& cluster, const SimulationOptions& options, SimulationResult& result) {
  SimulatedEnvironment& environment = cluster.environment();
  for (int slot = 0; slot < options.replicas; ++slot) cluster.Boot(slot);
  const auto has_started = [&] { return cluster.ServingSlots().size() == static_cast<std::size_t>(options.replicas); };
  if (!environment.RunUntil(has_started, minutes(1)))
    return cluster.history().Violate(environment.Now(), "G1: the cluster does not start");
  CreateLogs(cluster, options);
  Clients clients(cluster, options);
  Trouble trouble(cluster, options);
  clients.Start();
  trouble.Start();
  environment.RunUntil([&] { return clients.HasWorked() && trouble.fired_in_all() >= options.faults_min; },
                       minutes(30));
  trouble.Heal();
  clients.BeginCalm();
  environment.AdvanceBy(options.calm);
  cluster.history().ended_at = environment.WallNow();
  CheckNothingIsLeft(cluster);
  clients.Finish();
  if (!environment.RunUntil([&] { return clients.IsGone(); }, minutes(2))) {
    cluster.history().Violate(environment.Now(), "G10: a client waits for ever");
  }
  for (const std::string& open : cluster.CallsOpenFor(seconds(60))) cluster.history().Violate(environment.Now(), open);
  cluster.StopAll();
  if (cluster.corruptions() > 0) cluster.history().Violate(environment.Now(), "G2: a process met damage that was none");
  const Verdict verdict = JudgeHistory(cluster.history());
  result.violations = verdict.Violations();
  result.judged = verdict.judged();
  result.fired = trouble.fired();
  result.relayed = cluster.relayed();
  result.appended_elsewhere = cluster.appended_elsewhere();
  result.digest =
      environment.Random64() ^ cluster.history().moments << 32 ^ static_cast<std::uint64_t>(cluster.ensemble().zxid());
}

}  // namespace

SimulationResult Simulate(std::uint64_t seed, const SimulationOptions& options) {
  SimulationResult result;
  testing::TestPartResultArray failures;
  {
    testing::ScopedFakeTestPartResultReporter reporter(
        testing::ScopedFakeTestPartResultReporter::INTERCEPT_ONLY_CURRENT_THREAD, &failures);
    Cluster cluster(seed, options.traces);
    Run(cluster, options, result);
    result.trace = cluster.trace();
  }
  for (int i = 0; i < failures.size(); ++i) {
    result.violations.push_back(Cat("the world: ", failures.GetTestPartResult(i).message()));
  }
  return result;
}

}  // namespace postkeeper
