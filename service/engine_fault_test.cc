// A queue's engine under random faults, from a seed: broken connections with late copies, expired sessions, a stopped
// ensemble, a log lost for a moment, restarts and crashes. What happened is recorded, and the promises of
// docs/GUARANTEES.md are checked against the record. POSTKEEPER_FAULT_SEEDS=n runs n seeds instead of the usual few.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <set>

#include "tests/support/simulated_replica.h"
#include "zkstore/text.h"

namespace postkeeper {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using OnTheWay = zk::SimulatedClient::OnTheWay;
using SettleOutcome = absl::StatusOr<std::vector<SettleFailure>>;
using DequeueOutcome = absl::StatusOr<QueueEngine::Dequeued>;

constexpr Duration kLease = seconds(5);

// One message as its producer and its consumers saw it.
struct Life {
  enum class Fate { kOpen, kOk, kUnknown, kRefused };
  struct Given {
    LeaseToken token;
    std::string message_id;
    std::int32_t attempt = 0;
    Instant at{};
    bool was_given_back = false;  // its consumer has nacked, released or tried to ack it
  };

  Fate fate = Fate::kOpen;
  bool is_delayed = false;
  std::vector<Given> given;
  std::optional<Instant> acked_at;  // when the first OK came
  bool is_perhaps_acked = false;    // its process ended before it answered an ack
};

// The last position of which a first attempt was seen, by epoch.
using FirstAttempts = std::map<std::uint64_t, Position>;

class EngineFaultTest : public testing::TestWithParam<int> {
 protected:
  EngineFaultTest()
      : random_(static_cast<std::uint64_t>(GetParam())),
        environment_(static_cast<std::uint64_t>(GetParam())),
        ensemble_(environment_),
        observer_(ensemble_) {
    settings_.lease_duration = kLease;
    settings_.retry_backoff = milliseconds(100);
    settings_.retry_backoff_max = seconds(2);
    Boot(std::nullopt);
  }

  ~EngineFaultTest() override {
    queue_.reset();
    dead_.clear();
    replica_.reset();
  }

  // ---- The process

  void Boot(std::optional<ProcessId> dead_predecessor) {
    SimulatedReplicaOptions options;
    options.append.in_flight_max = 3;
    options.append.batch_messages_max = 4;
    options.append.segment_batches_max = 6;
    options.cache_bytes = GetParam() % 2 == 0 ? 1 : 64 << 10;
    options.dead_predecessor = dead_predecessor;
    replica_ = std::make_unique<SimulatedReplica>(environment_, ensemble_, options);
    ASSERT_TRUE(replica_->Start().ok());
    queue_ = replica_->Queue("q", settings_);
    ++incarnation_;
    OpenStream();
  }

  void Crash() {
    const ProcessId dead = replica_->process();
    replica_->Crash(static_cast<OnTheWay>(random_.Below(3)));
    ForgetCalls();
    dead_.push_back(std::move(replica_));
    Boot(dead);
  }

  void Restart() {
    ForgetCalls();
    replica_->Stop();
    replica_.reset();
    Boot(std::nullopt);
  }

  // What the process was asked for and has not answered is never answered.
  void ForgetCalls() {
    for (Append& append : appends_) {
      for (const std::string& text : append.texts) lives_[text].fate = Life::Fate::kUnknown;
    }
    for (const Settle& settle : settles_) lives_[settle.text].is_perhaps_acked |= settle.is_ack;
    appends_.clear();
    settles_.clear();
    dequeues_.clear();
    queue_.reset();
  }

  // ---- Producers

  struct Append {
    std::vector<std::string> texts;
    std::string request_id;
    std::shared_ptr<Pending<AppendOutcome>> call;
  };

  void Enqueue() {
    Append append;
    const std::uint64_t count = 1 + random_.Below(3);
    const bool is_delayed = random_.Chance(0.1);
    for (std::uint64_t i = 0; i < count; ++i) {
      append.texts.push_back(Cat("m", lives_.size()));
      lives_[append.texts.back()].is_delayed = is_delayed;
    }
    if (random_.Chance(0.4)) append.request_id = append.texts.front();
    due_ = is_delayed ? environment_.WallNow() + milliseconds(random_.Below(5000)) : NewMessage::kNotDelayed;
    append.call = StartEnqueue(queue_, MakeAppend(append.texts, append.request_id, due_));
    appends_.push_back(std::move(append));
  }

  void HearOfAppends() {
    for (std::size_t i = 0; i < appends_.size();) {
      Append& append = appends_[i];
      if (!append.call->is_done()) {
        ++i;
        continue;
      }
      const absl::Status status = append.call->result->status();
      const bool is_unknown = HasReason(status, Reason::kOutcomeUnknown);
      if (is_unknown && !append.request_id.empty() && !is_healing_) {
        append.call = StartEnqueue(queue_, MakeAppend(append.texts, append.request_id));  // safe to repeat
        ++i;
        continue;
      }
      for (const std::string& text : append.texts) {
        lives_[text].fate = status.ok() ? Life::Fate::kOk : is_unknown ? Life::Fate::kUnknown : Life::Fate::kRefused;
      }
      appends_.erase(appends_.begin() + static_cast<std::ptrdiff_t>(i));
    }
  }

  // ---- Consumers

  void OpenStream() {
    PostTo(environment_, queue_, [this, queue = queue_, incarnation = incarnation_] {
      CheckedOpen open;
      open.credit = {7, 1 << 20};
      open.is_credit_manual = false;
      QueueEngine::ConsumerCallbacks callbacks;
      callbacks.on_deliveries = [this, incarnation](std::vector<Delivery> deliveries, Duration) {
        Receive(incarnation, deliveries, first_of_stream_);
      };
      ASSERT_TRUE(queue->AddConsumer(open, std::move(callbacks)).ok());
    });
  }

  void Dequeue() {
    CheckedDequeue request;
    request.messages_max = static_cast<int>(1 + random_.Below(5));
    request.bytes_max = 1 << 20;
    request.wait = milliseconds(random_.Below(2000));
    auto call = [](EngineFaultTest* test, std::shared_ptr<QueueEngine> queue, CheckedDequeue wanted,
                   int incarnation) -> Task<int> {
      const auto handle = std::make_shared<QueueEngine::CallHandle>();
      FirstAttempts before = test->first_of_all_;  // two calls at the same time may be answered in any order
      DequeueOutcome outcome = co_await queue->Dequeue(std::move(wanted), handle);
      if (outcome.ok()) test->Receive(incarnation, outcome->deliveries, before);
      co_return 0;
    };
    dequeues_.push_back(StartOn<int>(queue_, call(this, queue_, std::move(request), incarnation_)));
  }

  void Receive(int incarnation, const std::vector<Delivery>& deliveries, FirstAttempts& before) {
    if (incarnation != incarnation_) return;  // on its way when its process ended
    const Instant now = environment_.Now();
    for (const Delivery& delivery : deliveries) {
      const std::string text(delivery.message());
      ASSERT_TRUE(lives_.contains(text));
      Life& life = lives_[text];
      CheckDelivery(text, life, delivery, before, now);
      life.given.push_back({delivery.token, delivery.message_id(), delivery.attempt, now});
      inbox_.push_back(text);
    }
  }

  // G3, G4, G5, G6 at the moment of a delivery.
  void CheckDelivery(const std::string& text, const Life& life, const Delivery& delivery, FirstAttempts& before,
                     Instant now) {
    EXPECT_FALSE(life.acked_at) << "G3: " << text << " is delivered after its ack was answered OK";
    EXPECT_TRUE(tokens_.insert(delivery.token).second) << "G6: " << text << " was given twice under one token";
    if (life.given.empty()) {
      if (life.is_delayed || delivery.attempt != 1) return;
      Position& last = before[delivery.token.epoch];
      EXPECT_LT(last, delivery.token.position) << "G5: " << text << " comes first after a later one";
      last = delivery.token.position;
      Position& last_of_all = first_of_all_[delivery.token.epoch];
      last_of_all = std::max(last_of_all, last);
      return;
    }
    const Life::Given& earlier = life.given.back();
    EXPECT_EQ(earlier.message_id, delivery.message_id()) << "G4: " << text << " was written twice";
    EXPECT_EQ(earlier.token.position, delivery.token.position) << "G4: " << text << " was written twice";
    if (earlier.token.number >= 2) {
      EXPECT_GT(delivery.token.number, earlier.token.number) << text << ": a delivery number was not durable";
    }
    // Two seconds are for what was on its way to the consumer.
    const bool has_ended = earlier.was_given_back || now >= earlier.at + kLease - seconds(2);
    EXPECT_TRUE(has_ended || earlier.token.epoch != delivery.token.epoch) << "G6: " << text << " has two live leases";
  }

  struct Settle {
    std::string text;
    LeaseToken token;
    bool is_ack = false;
    bool is_outdated = false;  // sent when somebody else had been given the message
    std::shared_ptr<Pending<SettleOutcome>> call;
  };

  void Send(Settle settle, std::optional<CheckedNacks> nacks) {
    Life& life = lives_[settle.text];
    settle.is_outdated = settle.token != life.given.back().token;
    for (Life::Given& given : life.given) given.was_given_back |= given.token == settle.token;
    SettleOrders orders;
    if (nacks) {
      orders.nacks.push_back(*std::move(nacks));
    } else {
      orders.ack_tokens.push_back(EncodeLeaseToken(settle.token));
    }
    settle.call = StartOn<SettleOutcome>(queue_, queue_->Settle(std::move(orders)));
    settles_.push_back(std::move(settle));
  }

  void WorkThroughInbox() {
    for (const std::string& text : std::exchange(inbox_, {})) {
      Settle settle{.text = text, .token = lives_[text].given.back().token};
      const std::uint64_t dice = random_.Below(100);
      if (dice < 65 || is_healing_) {
        settle.is_ack = true;
        Send(std::move(settle), std::nullopt);
      } else if (dice < 85) {
        CheckedNacks nacks{.lease_tokens = {EncodeLeaseToken(settle.token)}};
        nacks.kind = dice < 72 ? NackKind::kRelease : NackKind::kRetry;
        if (dice >= 76) nacks.delay = milliseconds(random_.Below(1000));
        Send(std::move(settle), std::move(nacks));
      } else if (dice < 92) {
        to_ack_late_.push_back(std::move(settle));
      }  // else its consumer is dead
    }
    if (!to_ack_late_.empty() && random_.Chance(0.2)) {
      Settle late = std::move(to_ack_late_.front());
      to_ack_late_.erase(to_ack_late_.begin());
      late.is_ack = true;
      Send(std::move(late), std::nullopt);
    }
  }

  void HearOfSettles() {
    for (std::size_t i = 0; i < settles_.size();) {
      if (!settles_[i].call->is_done()) {
        ++i;
        continue;
      }
      Settle settle = std::move(settles_[i]);
      settles_.erase(settles_.begin() + static_cast<std::ptrdiff_t>(i));
      if (!settle.is_ack) continue;
      Life& life = lives_[settle.text];
      const SettleOutcome& outcome = *settle.call->result;
      if (!outcome.ok()) {
        Send({.text = settle.text, .token = settle.token, .is_ack = true}, std::nullopt);  // an Ack may be repeated
        continue;
      }
      const bool is_ok = outcome->empty();
      EXPECT_FALSE(is_ok && settle.is_outdated) << "G6: a stale ack settled " << settle.text;
      if (is_ok || outcome->front().error == SettleError::kAlreadySettled) {
        if (!life.acked_at) life.acked_at = environment_.Now();
      } else {
        EXPECT_EQ(outcome->front().error, SettleError::kStaleLease);
      }
    }
  }

  // ---- Faults

  void DeposeOwner() {
    absl::StatusOr<OwnerView> owner = environment_.RunTask(ReadOwner(observer_, layout_, queue_->uid()));
    if (!owner.ok()) return;
    std::vector<zk::Op> ops;
    ops.push_back(LetGoOp(layout_, queue_->uid(), *owner));
    environment_.RunTask(observer_.Multi(std::move(ops)));
  }

  void MakeTrouble() {
    zk::SimulatedClient& client = replica_->client();
    auto is_write = [](const zk::Request& request) { return request.kind == zk::Request::Kind::kMulti; };
    auto is_any = [](const zk::Request&) { return true; };
    switch (random_.Below(24)) {
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
        return client.LoseNext(is_write);
      case 5:
        return client.LoseReplyToNext(is_write);
      case 6:
        return client.LoseReplyToNext(is_any);
      case 7:
        return client.HoldNext(is_write);
      case 8:
        client.SetReachable(false);
        environment_.AdvanceBy(milliseconds(random_.Below(14'000)));
        return client.SetReachable(true);
      case 9:
        return DeposeOwner();
      case 10:
        if (random_.Chance(0.5)) return Crash();
        return;
      case 11:
        if (random_.Chance(0.3)) return Restart();
        return;
      default:
        client.ReleaseHeld();
        return;
    }
  }

  void Step() {
    for (std::uint64_t i = random_.Below(4); i > 0 && !is_healing_; --i) Enqueue();
    if (random_.Chance(0.3)) Dequeue();
    environment_.AdvanceBy(microseconds(random_.Chance(0.1) ? random_.Below(6'000'000) : random_.Below(3'000)));
    HearOfAppends();
    WorkThroughInbox();
    HearOfSettles();
  }

  std::int64_t MessagesLeft() {
    const auto stats = RunOn(environment_, queue_, queue_->GetStats());
    return stats.ok() ? stats->counts.total() : -1;
  }

  SimulatedRandom random_;
  SimulatedEnvironment environment_;
  zk::SimulatedEnsemble ensemble_;
  zk::SimulatedClient observer_;
  const Layout layout_{"/postkeeper"};
  QueueSettings settings_;
  std::vector<std::unique_ptr<SimulatedReplica>> dead_;
  std::unique_ptr<SimulatedReplica> replica_;
  std::shared_ptr<QueueEngine> queue_;
  int incarnation_ = 0;
  bool is_healing_ = false;
  WallTime due_{};

  std::map<std::string, Life> lives_;  // by text
  std::set<LeaseToken> tokens_;
  FirstAttempts first_of_all_;
  FirstAttempts first_of_stream_;
  std::vector<std::string> inbox_;
  std::vector<Append> appends_;
  std::vector<Settle> settles_;
  std::vector<Settle> to_ack_late_;
  std::vector<std::shared_ptr<Pending<int>>> dequeues_;
};

// Whatever breaks: what was accepted is delivered until it is acked, in order, to one at a time, and never after.
TEST_P(EngineFaultTest, PromisesHoldUnderFaults) {
  for (int step = 0; step < 120 && !HasFailure(); ++step) {
    Step();
    MakeTrouble();
  }
  if (HasFailure()) return;  // what follows from the first one says nothing
  // All is well again: everything is worked off.
  is_healing_ = true;
  replica_->client().ReleaseHeld();
  for (int step = 0; step < 400 && !HasFailure(); ++step) {
    Step();
    if (step % 20 == 0) {
      replica_->client().ReleaseHeld();
      environment_.AdvanceBy(kLease);
      if (appends_.empty() && settles_.empty() && inbox_.empty() && MessagesLeft() == 0) break;
    }
  }
  if (HasFailure()) return;
  EXPECT_EQ(MessagesLeft(), 0) << "G2: messages are never delivered";
  EXPECT_TRUE(appends_.empty()) << "an Enqueue is never answered";
  EXPECT_TRUE(settles_.empty()) << "an Ack is never answered";
  for (const auto& [text, life] : lives_) {
    if (life.fate == Life::Fate::kOk) {
      EXPECT_FALSE(life.given.empty()) << "G1: " << text << " was accepted and is lost";
      EXPECT_TRUE(life.acked_at || life.is_perhaps_acked) << "G2: " << text << " is gone without an ack";
    }
    const bool was_refused = life.fate == Life::Fate::kRefused;
    EXPECT_FALSE(was_refused && !life.given.empty()) << text << " was refused and is delivered";
  }
  EXPECT_EQ(replica_->context().corruptions, 0);
  for (const auto& dead : dead_) EXPECT_EQ(dead->context().corruptions, 0);
}

int SeedCount() {
  const char* wanted = std::getenv("POSTKEEPER_FAULT_SEEDS");
  return wanted == nullptr ? 48 : std::max(1, std::atoi(wanted));
}

INSTANTIATE_TEST_SUITE_P(Seeds, EngineFaultTest, testing::Range(1, 1 + SeedCount()));

}  // namespace
}  // namespace postkeeper
