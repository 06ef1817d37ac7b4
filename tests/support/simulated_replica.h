// A replica in the simulated world, for the tests of the engines.
#ifndef POSTKEEPER_TESTS_SUPPORT_SIMULATED_REPLICA_H_
#define POSTKEEPER_TESTS_SUPPORT_SIMULATED_REPLICA_H_

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "service/broker.h"
#include "tests/support/simulation/process_environment.h"
#include "zkstore/errors.h"
#include "zkstore/simulated_client.h"
#include "zkstore/simulator.h"

namespace postkeeper {

struct SimulatedReplicaOptions {
  AppendOptions append;
  EngineLimits limits;
  std::size_t cache_bytes = 64 << 20;
  std::string address = "127.0.0.1:7411";
  std::optional<ProcessId> dead_predecessor;
  bool waits_for_session = true;
};

// What a task that was started will have returned.
template <typename T>
struct Pending {
  std::optional<T> result;
  bool is_done() const { return result.has_value(); }
};

// A process with a ZooKeeper session, a broker and its engines. The environment and the ensemble outlive it.
class SimulatedReplica {
 public:
  SimulatedReplica(SimulatedEnvironment& environment, zk::SimulatedEnsemble& ensemble,
                   SimulatedReplicaOptions options = {})
      : environment_(environment),
        process_environment_(environment),
        client_(ensemble, {.executor = process_environment_.executor()}),
        layout_("/postkeeper"),
        catalog_(process_environment_, client_, layout_),
        cache_(options.cache_bytes),
        metrics_(MakeNullMetrics()),
        context_{.environment = process_environment_,
                 .client = client_,
                 .catalog = catalog_,
                 .layout = layout_,
                 .process = ProcessId::Make(environment),
                 .address = options.address,
                 .cache = cache_,
                 .metrics = *metrics_,
                 .append = options.append,
                 .limits = options.limits},
        broker_(std::make_unique<Broker>(
            context_, Broker::Options{.version = "test", .dead_predecessor = options.dead_predecessor})) {
    if (!options.waits_for_session) return;
    environment_.RunUntil([this] { return client_.session().state == zk::SessionState::kConnected; },
                          std::chrono::seconds(30));
  }

  // Ends everything, and checks that nothing goes on working afterwards.
  ~SimulatedReplica() {
    if (!stopped_at_) Stop(std::chrono::seconds(0));
    const Instant gone_at = *stopped_at_ + kLongestPause;
    if (environment_.Now() < gone_at) environment_.AdvanceBy(gone_at - environment_.Now());
    broker_.reset();
    for (const auto& queue : queues_) EXPECT_TRUE(queue.expired()) << "a queue's engine goes on after its end";
    for (const auto& topic : topics_) EXPECT_TRUE(topic.expired()) << "a topic's engine goes on after its end";
  }

  absl::Status Start() { return environment_.RunTask(broker_->Start()); }
  void Stop(Duration timeout = std::chrono::seconds(10)) { environment_.RunTask(Stopping(timeout)); }
  // The same, while others work.
  Task<void> Stopping(Duration timeout) {
    co_await broker_->Stop(timeout);
    client_.Close(std::chrono::seconds(1));
    stopped_at_ = environment_.Now();
  }
  // As after kill -9: nothing of this process reaches ZooKeeper any more.
  void Crash(zk::SimulatedClient::OnTheWay on_the_way = zk::SimulatedClient::OnTheWay::kLost) {
    client_.Abandon(on_the_way);
    Stop(std::chrono::seconds(0));
  }

  static Name QueueName(std::string id) { return {Name::Kind::kQueue, "default", std::move(id), {}}; }
  static Name TopicName(std::string id) { return {Name::Kind::kTopic, "default", std::move(id), {}}; }

  // Creates it if it is not there.
  std::shared_ptr<QueueEngine> Queue(std::string id, QueueSettings settings = {}) {
    const Name name = QueueName(std::move(id));
    if (broker_->FindQueue(name) == nullptr) {
      EXPECT_TRUE(environment_.RunTask(broker_->Create(name, settings)).ok());
    }
    std::shared_ptr<QueueEngine> engine = broker_->FindQueue(name);
    queues_.push_back(engine);
    return engine;
  }
  std::shared_ptr<TopicEngine> Topic(std::string id, TopicSettings settings = {}) {
    const Name name = TopicName(std::move(id));
    if (broker_->FindTopic(name) == nullptr) {
      EXPECT_TRUE(environment_.RunTask(broker_->Create(name, settings)).ok());
    }
    std::shared_ptr<TopicEngine> engine = broker_->FindTopic(name);
    topics_.push_back(engine);
    return engine;
  }

  ProcessEnvironment& environment() { return process_environment_; }
  zk::SimulatedClient& client() { return client_; }
  Catalog& catalog() { return catalog_; }
  Broker& broker() { return *broker_; }
  EngineContext& context() { return context_; }
  const Layout& layout() const { return layout_; }
  const ProcessId& process() const { return context_.process; }

 private:
  // No coroutine sleeps longer than the broker's sweeper, plus a request that is not answered.
  static constexpr Duration kLongestPause = std::chrono::seconds(30) + zk::kRequestTimeout + std::chrono::seconds(2);

  SimulatedEnvironment& environment_;
  ProcessEnvironment process_environment_;
  zk::SimulatedClient client_;
  const Layout layout_;
  Catalog catalog_;
  BatchCache cache_;
  std::unique_ptr<Metrics> metrics_;
  EngineContext context_;
  std::unique_ptr<Broker> broker_;
  std::optional<Instant> stopped_at_;
  std::vector<std::weak_ptr<QueueEngine>> queues_;
  std::vector<std::weak_ptr<TopicEngine>> topics_;
};

// Runs `task` on the engine's strand; `keep` lives until it has ended.
template <typename T, typename Engine>
std::shared_ptr<Pending<T>> StartOn(std::shared_ptr<Engine> engine, Task<T> task) {
  auto pending = std::make_shared<Pending<T>>();
  auto run = [](std::shared_ptr<Engine> keep, Task<T> inner, std::shared_ptr<Pending<T>> outcome) -> Task<void> {
    outcome->result.emplace(co_await std::move(inner));
    (void)keep;
  };
  Spawn(engine->strand(), run(engine, std::move(task), pending));
  return pending;
}

template <typename T, typename Engine>
T RunOn(SimulatedEnvironment& environment, std::shared_ptr<Engine> engine, Task<T> task) {
  const std::shared_ptr<Pending<T>> pending = StartOn<T>(std::move(engine), std::move(task));
  EXPECT_TRUE(environment.RunUntil([&] { return pending->is_done(); }, std::chrono::minutes(10)));
  return std::move(*pending->result);
}

// Runs `function` on the engine's strand, now.
template <typename Engine, typename Function>
void PostTo(SimulatedEnvironment& environment, const std::shared_ptr<Engine>& engine, Function function) {
  asio::post(engine->strand(), std::move(function));
  environment.RunUntilIdle();
}

inline CheckedAppend MakeAppend(const std::vector<std::string>& texts, std::string request_id = "",
                                WallTime due = NewMessage::kNotDelayed) {
  CheckedAppend append;
  for (const std::string& text : texts) {
    append.messages.push_back({text, due});
    append.message_bytes += static_cast<std::int64_t>(text.size());
  }
  append.request_id = std::move(request_id);
  return append;
}

// Messages as "text", or "text:dedup_id".
inline CheckedAppend MakeAppendWithDedupIds(const std::vector<std::string>& messages, std::string request_id = "") {
  CheckedAppend append;
  for (const std::string& message : messages) {
    const std::size_t colon = message.find(':');
    NewMessage& added = append.messages.emplace_back();
    added.bytes = message.substr(0, colon);
    append.message_bytes += static_cast<std::int64_t>(added.bytes.size());
    if (colon == std::string::npos) continue;
    added.dedup_id = HashOfDedupId(message.substr(colon + 1));
    ++append.dedup_ids;
  }
  append.request_id = std::move(request_id);
  return append;
}

// The message ids of an answer, and behind them the indexes of the duplicates.
inline std::vector<std::string> AnswerOf(const Appended& appended) {
  std::vector<std::string> answer;
  for (std::uint32_t i = 0; i < appended.size(); ++i) answer.push_back(appended.MessageId(i));
  if (appended.duplicates) {
    for (const Duplicate& duplicate : *appended.duplicates) answer.push_back(std::to_string(duplicate.index));
  }
  return answer;
}

using AppendOutcome = absl::StatusOr<Appended>;

inline std::shared_ptr<Pending<AppendOutcome>> StartEnqueue(const std::shared_ptr<QueueEngine>& queue,
                                                            CheckedAppend append) {
  auto pending = std::make_shared<Pending<AppendOutcome>>();
  asio::post(queue->strand(), [queue, pending, append = std::move(append)]() mutable {
    queue->Enqueue(std::move(append), [pending](AppendOutcome outcome) {
      EXPECT_FALSE(pending->is_done()) << "a call is answered once";
      pending->result = std::move(outcome);
    });
  });
  return pending;
}

inline std::shared_ptr<Pending<AppendOutcome>> StartPublish(const std::shared_ptr<TopicEngine>& topic,
                                                            CheckedAppend append) {
  auto pending = std::make_shared<Pending<AppendOutcome>>();
  asio::post(topic->strand(), [topic, pending, append = std::move(append)]() mutable {
    topic->Publish(std::move(append), [pending](AppendOutcome outcome) {
      EXPECT_FALSE(pending->is_done()) << "a call is answered once";
      pending->result = std::move(outcome);
    });
  });
  return pending;
}

}  // namespace postkeeper

#endif  // POSTKEEPER_TESTS_SUPPORT_SIMULATED_REPLICA_H_
