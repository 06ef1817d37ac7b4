// One queue's engine in a simulated world, and what its tests do with it in a word.
#ifndef POSTKEEPER_TESTS_SUPPORT_QUEUE_ENGINE_TEST_H_
#define POSTKEEPER_TESTS_SUPPORT_QUEUE_ENGINE_TEST_H_

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "postkeeper/storage/v1/records.pb.h"
#include "service/queue_engine.h"
#include "tests/support/simulated_replica.h"
#include "zkstore/text.h"

namespace postkeeper {

class QueueEngineTest : public testing::Test {
 protected:
  QueueEngineTest() : environment_(1), ensemble_(environment_), observer_(ensemble_) { Boot(); }

  ~QueueEngineTest() override {
    queue_.reset();
    dead_.clear();
    replica_.reset();
  }

  // Starts a process and opens the queue.
  void Boot(SimulatedReplicaOptions options = {}) {
    replica_ = std::make_unique<SimulatedReplica>(environment_, ensemble_, std::move(options));
    ASSERT_TRUE(replica_->Start().ok());
    queue_ = replica_->Queue("q", settings_);
  }

  // The process ends in good order and another one starts.
  void Restart() {
    queue_.reset();
    replica_->Stop();
    replica_.reset();
    Boot();
  }

  // The process is killed and another one starts, which knows that the first is dead.
  void CrashAndBoot(zk::SimulatedClient::OnTheWay on_the_way = zk::SimulatedClient::OnTheWay::kLost) {
    SimulatedReplicaOptions options;
    options.dead_predecessor = replica_->process();
    replica_->Crash(on_the_way);
    queue_.reset();
    dead_.push_back(std::move(replica_));
    Boot(std::move(options));
  }

  absl::Status Enqueue(const std::vector<std::string>& texts, std::string request_id = "",
                       WallTime due = NewMessage::kNotDelayed) {
    const auto pending = StartEnqueue(queue_, MakeAppend(texts, std::move(request_id), due));
    EXPECT_TRUE(environment_.RunUntil([&] { return pending->is_done(); }, std::chrono::minutes(2)));
    return pending->result->status();
  }

  using DequeueOutcome = absl::StatusOr<QueueEngine::Dequeued>;
  std::shared_ptr<Pending<DequeueOutcome>> StartDequeue(int messages_max, Duration wait,
                                                        std::shared_ptr<QueueEngine::CallHandle> call = nullptr,
                                                        std::optional<Duration> lease = std::nullopt,
                                                        std::vector<std::string> acks = {}) {
    CheckedDequeue request;
    request.messages_max = messages_max;
    request.bytes_max = 3 << 20;
    request.wait = wait;
    request.lease = lease;
    request.ack_tokens = std::move(acks);
    if (!call) call = std::make_shared<QueueEngine::CallHandle>();
    return StartOn<DequeueOutcome>(queue_, queue_->Dequeue(std::move(request), call));
  }

  std::vector<Delivery> Dequeue(int messages_max = 1000, Duration wait = Duration::zero(),
                                std::optional<Duration> lease = std::nullopt, std::vector<std::string> acks = {}) {
    const auto pending = StartDequeue(messages_max, wait, nullptr, lease, std::move(acks));
    EXPECT_TRUE(environment_.RunUntil([&] { return pending->is_done(); }, std::chrono::minutes(2)));
    EXPECT_TRUE(pending->result->ok()) << pending->result->status();
    if (!pending->result->ok()) return {};
    EXPECT_THAT((*pending->result)->failures, testing::IsEmpty());
    return std::move((*pending->result)->deliveries);
  }

  absl::StatusOr<std::vector<SettleFailure>> Settle(SettleOrders orders) {
    return RunOn(environment_, queue_, queue_->Settle(std::move(orders)));
  }
  static std::vector<std::string> Tokens(const std::vector<Delivery>& deliveries) {
    std::vector<std::string> tokens;
    for (const Delivery& delivery : deliveries) tokens.push_back(EncodeLeaseToken(delivery.token));
    return tokens;
  }
  // What became of each ack: "ok", "settled", "stale", "malformed", or the error of the whole call.
  std::string Ack(const Delivery& delivery) { return AckToken(EncodeLeaseToken(delivery.token)); }
  std::string AckToken(std::string token) {
    SettleOrders orders;
    orders.ack_tokens.push_back(std::move(token));
    return Word(Settle(std::move(orders)));
  }
  std::string Nack(const Delivery& delivery, std::optional<Duration> delay = std::nullopt,
                   NackKind kind = NackKind::kRetry, std::string reason = "") {
    SettleOrders orders;
    orders.nacks.push_back({{EncodeLeaseToken(delivery.token)}, kind, std::move(reason), delay});
    return Word(Settle(std::move(orders)));
  }
  std::string Extend(const Delivery& delivery, Duration lease) {
    SettleOrders orders;
    orders.extensions.push_back({{EncodeLeaseToken(delivery.token)}, lease});
    return Word(Settle(std::move(orders)));
  }
  static std::string Word(const absl::StatusOr<std::vector<SettleFailure>>& failures) {
    if (!failures.ok()) return std::string(failures.status().message());
    if (failures->empty()) return "ok";
    switch (failures->front().error) {
      case SettleError::kAlreadySettled:
        return "settled";
      case SettleError::kStaleLease:
        return "stale";
      case SettleError::kMalformedToken:
        return "malformed";
      case SettleError::kLeaseLimit:
        return "limit";
    }
    return "?";
  }

  QueueEngine::Stats Stats() {
    const absl::StatusOr<QueueEngine::Stats> stats = RunOn(environment_, queue_, queue_->GetStats());
    EXPECT_TRUE(stats.ok()) << stats.status();
    return stats.value_or(QueueEngine::Stats{});
  }

  static std::vector<std::string> Texts(const std::vector<Delivery>& deliveries) {
    std::vector<std::string> texts;
    for (const Delivery& delivery : deliveries) texts.emplace_back(delivery.message());
    return texts;
  }

  // A stream that keeps what it gets.
  struct Stream {
    QueueEngine::ConsumerId id = 0;
    std::vector<Delivery> deliveries;
    std::optional<absl::Status> end;
  };
  std::shared_ptr<Stream> OpenStream(CheckedCredit credit, bool is_credit_manual = false, bool keeps_leases = false,
                                     std::optional<Duration> lease = std::nullopt) {
    auto stream = std::make_shared<Stream>();
    CheckedOpen open;
    open.credit = credit;
    open.is_credit_manual = is_credit_manual;
    open.keeps_leases = keeps_leases;
    open.lease = lease;
    PostTo(environment_, queue_, [this, stream, open] {
      QueueEngine::ConsumerCallbacks callbacks;
      callbacks.on_deliveries = [stream](std::vector<Delivery> deliveries, Duration) {
        for (Delivery& delivery : deliveries) stream->deliveries.push_back(std::move(delivery));
      };
      callbacks.on_end = [stream](absl::Status why) { stream->end = std::move(why); };
      const auto id = queue_->AddConsumer(open, std::move(callbacks));
      ASSERT_TRUE(id.ok());
      stream->id = *id;
    });
    return stream;
  }

  std::vector<std::string> BatchesStored() {
    std::vector<std::string> batches;
    const zk::Response segments = environment_.RunTask(observer_.Children(layout_.Segments(queue_->uid())));
    for (const std::string& segment : segments.children) {
      const zk::Response names =
          environment_.RunTask(observer_.Children(Cat(layout_.Segments(queue_->uid()), "/", segment)));
      for (const std::string& name : names.children) batches.push_back(Cat(segment, "/", name));
    }
    return batches;
  }

  // As if another replica had taken the log and given it back: this one is deposed and finds out.
  void DeposeOwner() {
    const absl::StatusOr<OwnerView> owner = environment_.RunTask(ReadOwner(observer_, layout_, queue_->uid()));
    ASSERT_TRUE(owner.ok());
    std::vector<zk::Op> ops;
    ops.push_back(LetGoOp(layout_, queue_->uid(), *owner));
    ASSERT_EQ(environment_.RunTask(observer_.Multi(std::move(ops))).code, zk::Code::kOk);
  }

  // Enough traffic and time for all that is due to happen.
  void Pass(Duration time) { environment_.AdvanceBy(time); }

  SimulatedEnvironment environment_;
  zk::SimulatedEnsemble ensemble_;
  zk::SimulatedClient observer_;
  const Layout layout_{"/postkeeper"};
  QueueSettings settings_;
  std::vector<std::unique_ptr<SimulatedReplica>> dead_;
  std::unique_ptr<SimulatedReplica> replica_;
  std::shared_ptr<QueueEngine> queue_;
};

}  // namespace postkeeper

#endif  // POSTKEEPER_TESTS_SUPPORT_QUEUE_ENGINE_TEST_H_
