#include "service/consume_session.h"

#include <gmock/gmock.h>

#include "tests/support/queue_engine_test.h"
#include "zkstore/errors.h"

namespace postkeeper {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::IsEmpty;

// The owner as a script: a leg that another replica would serve.
class FakeLeg final : public ConsumeLeg {
 public:
  FakeLeg(std::string to, LegOpening opening_then, Listener listener_then)
      : owner(std::move(to)), opening(std::move(opening_then)), listener(std::move(listener_then)) {}
  void Settle(std::int64_t sequence, const SettleOrders& orders) override {
    settled.emplace_back(sequence, orders);
    if (on_settle) on_settle(sequence);
  }
  void AddCredit(const CheckedCredit& more) override {
    credit += more.messages;
    credit_bytes += more.bytes;
  }
  void Stop() override { is_stopped = true; }
  void AskCounts() override {}
  void Release() override { is_released = true; }
  void Close() override { is_closed = true; }

  std::vector<std::int64_t> Sequences() const {
    std::vector<std::int64_t> sequences;
    for (const auto& [sequence, orders] : settled) sequences.push_back(sequence);
    return sequences;
  }

  const std::string owner;
  const LegOpening opening;
  const Listener listener;
  std::vector<std::pair<std::int64_t, SettleOrders>> settled;
  std::function<void(std::int64_t sequence)> on_settle;
  std::int64_t credit = 0;
  std::int64_t credit_bytes = 0;
  bool is_stopped = false;
  bool is_released = false;
  bool is_closed = false;
};

class ConsumeSessionTest : public QueueEngineTest {
 protected:
  ~ConsumeSessionTest() override {
    if (session_) OnStrand([this] { session_->Leave(); });
    session_.reset();
    Pass(seconds(20));
  }

  void OnStrand(std::function<void()> function) { PostTo(environment_, queue_, std::move(function)); }

  void Open(CheckedCredit credit = {10, 1 << 20}, bool is_relayed = false) {
    ConsumeSession::Options options;
    options.open.source = SimulatedReplica::QueueName("q");
    options.open.credit = credit;
    options.open.heartbeat_interval = seconds(1);
    options.is_relayed = is_relayed;
    options.make_leg = [this](std::string owner, LegOpening opening, ConsumeLeg::Listener listener) {
      legs_.push_back(std::make_shared<FakeLeg>(std::move(owner), std::move(opening), std::move(listener)));
      return legs_.back();
    };
    ConsumeSession::Client client;
    client.on_opened = [this](Duration) { ++opened_; };
    client.on_deliveries = [this](const LegDeliveries& given) {
      for (const HeldLease& lease : given.leases) held_.push_back(lease);
      for (const Delivery& delivery : given.deliveries) got_.push_back(delivery);
    };
    client.on_settled = [this](std::int64_t sequence, const std::vector<SettleFailure>& failures) {
      answers_.emplace_back(sequence, failures.size());
    };
    client.on_heartbeat = [this](const ConsumeSession::Heartbeat& heartbeat) { heartbeats_.push_back(heartbeat); };
    client.on_end = [this](absl::Status status) { end_ = std::move(status); };
    session_ = std::make_shared<ConsumeSession>(replica_->environment(), queue_, std::move(options), client);
    OnStrand([this] { session_->Start(); });
    Pass(milliseconds(10));
  }

  void Take(std::int64_t sequence, std::vector<std::string> acks) {
    CheckedFrame frame;
    frame.sequence = sequence;
    frame.ack_tokens = std::move(acks);
    OnStrand([this, frame] { session_->Take(frame); });
  }

  // From now on a replica at this address has the queue.
  void GiveTo(const std::string& address) {
    if (last_epoch_ == 0) Pass(seconds(1));  // it takes its queue first
    replica_->context().is_first_choice = [](const Uid&, const OwnerView&) { return false; };
    const ProcessId process = ProcessId::Make(environment_);
    ASSERT_EQ(environment_.RunTask(observer_.Create(layout_.Replica(process), "")).code, zk::Code::kOk);
    DeposeOwner();
    const absl::StatusOr<OwnerView> taken =
        environment_.RunTask(TakeOwnership(observer_, layout_, queue_->uid(), process, address));
    ASSERT_TRUE(taken.ok()) << taken.status();
    last_epoch_ = taken->epoch;
    if (queue_->is_serving()) (void)Enqueue({"found out"}, "by a write");
    Pass(seconds(3));
  }

  FakeLeg& leg() { return *legs_.back(); }
  void Accept() {
    OnStrand([this] { leg().listener.on_opened(seconds(30)); });
  }
  HeldLease Lease(std::uint32_t index) const {
    return {{queue_->uid(), static_cast<std::uint64_t>(last_epoch_), Position(1, 0, index), 1}, 5, seconds(30)};
  }
  void Deliver(FakeLeg& from, std::vector<HeldLease> leases) {
    OnStrand([&from, leases] {
      LegDeliveries deliveries;
      deliveries.leases = leases;
      deliveries.lease = seconds(30);
      from.listener.on_deliveries(std::move(deliveries));
    });
  }
  static std::string TokenOf(const HeldLease& lease) { return EncodeLeaseToken(lease.token); }

  std::shared_ptr<ConsumeSession> session_;
  std::vector<std::shared_ptr<FakeLeg>> legs_;
  int opened_ = 0;
  std::vector<HeldLease> held_;
  std::vector<Delivery> got_;
  std::vector<std::pair<std::int64_t, std::size_t>> answers_;  // sequence, failures
  std::vector<ConsumeSession::Heartbeat> heartbeats_;
  std::optional<absl::Status> end_;
  std::int64_t last_epoch_ = 0;
};

// At the owner itself: messages come, acks are answered in order, and the half-close ends it.
TEST_F(ConsumeSessionTest, AtTheOwner) {
  ASSERT_TRUE(Enqueue({"a", "b"}).ok());
  Open();
  EXPECT_EQ(opened_, 1);
  Pass(seconds(1));
  EXPECT_THAT(Texts(got_), ElementsAre("a", "b"));
  Take(1, {EncodeLeaseToken(got_[0].token)});
  Take(2, {EncodeLeaseToken(got_[1].token), EncodeLeaseToken(got_[0].token)});
  Pass(seconds(2));
  EXPECT_THAT(answers_, ElementsAre(std::pair(1, 0U), std::pair(2, 1U)));
  EXPECT_THAT(heartbeats_, testing::Not(IsEmpty()));
  EXPECT_TRUE(heartbeats_.back().has_owner);
  EXPECT_EQ(heartbeats_.back().credit_left.messages, 10);
  OnStrand([this] { session_->FinishInput(); });
  ASSERT_TRUE(end_.has_value());
  EXPECT_TRUE(end_->ok()) << *end_;
}

// This replica loses the queue and gets it again: the stream goes on, what is held does not come again, its token is
// good, and its credit comes back only with the ack.
TEST_F(ConsumeSessionTest, SurvivesADeposition) {
  ASSERT_TRUE(Enqueue({"a", "b"}).ok());
  Open({2, 1 << 20});
  Pass(seconds(1));
  ASSERT_THAT(Texts(got_), ElementsAre("a", "b"));
  DeposeOwner();
  (void)Enqueue({"x"}, "finds out by it");
  Pass(seconds(5));
  ASSERT_TRUE(queue_->is_serving());
  ASSERT_TRUE(Enqueue({"c"}).ok());
  EXPECT_FALSE(end_.has_value());
  EXPECT_EQ(opened_, 1);
  EXPECT_THAT(Texts(got_), ElementsAre("a", "b"));
  Take(1, {EncodeLeaseToken(got_[0].token)});
  Pass(seconds(1));
  EXPECT_THAT(answers_, ElementsAre(std::pair(1, 0U)));
  EXPECT_THAT(Texts(got_), ElementsAre("a", "b", "c"));
}

// The queue goes to another replica: the new owner is told the credit that is left and what is held, gets the frames
// that nobody has answered, in order, and what comes late from the leg before is dropped.
TEST_F(ConsumeSessionTest, MovesToTheNextOwner) {
  GiveTo("replica-a");
  Open({5, 1000});
  ASSERT_EQ(legs_.size(), 1U);
  EXPECT_EQ(leg().owner, "replica-a");
  EXPECT_EQ(opened_, 0);
  Accept();
  EXPECT_EQ(opened_, 1);
  const auto first = legs_.back();
  Deliver(*first, {Lease(0), Lease(1), Lease(2)});
  Take(1, {TokenOf(Lease(0))});
  Take(2, {TokenOf(Lease(1))});
  EXPECT_THAT(first->Sequences(), ElementsAre(1, 2));
  OnStrand([&] { first->listener.on_settled(1, {}); });
  EXPECT_THAT(answers_, ElementsAre(std::pair(1, 0U)));
  GiveTo("replica-b");
  ASSERT_EQ(legs_.size(), 2U);
  EXPECT_TRUE(first->is_closed);
  EXPECT_EQ(leg().owner, "replica-b");
  EXPECT_EQ(leg().opening.open.credit.messages, 3);
  EXPECT_EQ(leg().opening.open.credit.bytes, 990);
  ASSERT_EQ(leg().opening.held.size(), 2U);
  EXPECT_EQ(leg().opening.held[0].token, held_[1].token);
  EXPECT_EQ(leg().opening.held[1].token, held_[2].token);
  Deliver(*first, {Lease(3)});
  EXPECT_EQ(held_.size(), 3U);
  EXPECT_THAT(leg().Sequences(), IsEmpty());
  Accept();
  EXPECT_EQ(opened_, 1);
  EXPECT_THAT(leg().Sequences(), ElementsAre(2));
  EXPECT_FALSE(end_.has_value());
}

// What the second owner says of an ack is what the client is told, also when the first owner may have carried it out:
// nobody can know whose ack it was that settled the message.
TEST_F(ConsumeSessionTest, RepeatedAckThatWasIn) {
  GiveTo("replica-a");
  Open();
  Accept();
  Deliver(leg(), {Lease(0), Lease(1)});
  const std::string token = TokenOf(Lease(0));
  const std::string other = TokenOf(Lease(1));
  Take(1, {token});
  OnStrand([this] { leg().listener.on_end(MakeError(Reason::kNoOwner, "gone")); });
  Pass(seconds(1));
  ASSERT_EQ(legs_.size(), 2U);
  Accept();
  Take(2, {other});
  ASSERT_THAT(leg().Sequences(), ElementsAre(1, 2));
  OnStrand([&] {
    leg().listener.on_settled(2, {{other, SettleError::kAlreadySettled, ""}});
    leg().listener.on_settled(1, {{token, SettleError::kAlreadySettled, ""}});
  });
  EXPECT_THAT(answers_, ElementsAre(std::pair(1, 1U), std::pair(2, 1U)));
}

// While there is no owner the stream stays, for longer than a call would wait, and its heartbeats say so.
TEST_F(ConsumeSessionTest, WaitsForAnOwner) {
  GiveTo("replica-a");
  Open();
  Accept();
  for (int i = 0; i < 60; ++i) {
    OnStrand([this] {
      if (!leg().is_closed) leg().listener.on_end(MakeError(Reason::kReplicaDraining, "not for long"));
    });
    Pass(seconds(1));
  }
  EXPECT_FALSE(end_.has_value());
  EXPECT_FALSE(heartbeats_.back().has_owner);
  EXPECT_LT(legs_.size(), 100U);
  Accept();
  Pass(seconds(2));
  EXPECT_TRUE(heartbeats_.back().has_owner);
}

// The engine may answer a frame, or end the leg, while it is being told the unanswered ones.
TEST_F(ConsumeSessionTest, AnswersWhileItIsTold) {
  for (const bool ends : {false, true}) {
    SCOPED_TRACE(ends);
    answers_.clear();
    GiveTo(ends ? "replica-a" : "replica-b");
    Open();
    const auto first = legs_.back();
    Accept();
    for (std::int64_t sequence = 1; sequence <= 3; ++sequence) Take(sequence, {TokenOf(Lease(0))});
    OnStrand([&] { first->listener.on_end(MakeError(Reason::kNoOwner, "gone")); });
    Pass(seconds(1));
    const auto second = legs_.back();
    ASSERT_NE(first, second);
    second->on_settle = [&](std::int64_t sequence) {
      if (ends) return second->listener.on_end(MakeError(Reason::kNoOwner, "gone, too"));
      second->listener.on_settled(sequence, {});
    };
    Accept();
    EXPECT_EQ(answers_.size(), ends ? 0U : 3U);
    EXPECT_EQ(second->settled.size(), ends ? 1U : 3U);
    EXPECT_FALSE(end_.has_value());
    second->on_settle = nullptr;
    OnStrand([this] { session_->Leave(); });
  }
}

// Credit of bytes alone, given while a leg is being opened, reaches the owner.
TEST_F(ConsumeSessionTest, BytesOfCreditAreCarriedOn) {
  GiveTo("replica-a");
  Open();
  CheckedFrame more;
  more.credit = CheckedCredit{0, 1000};
  OnStrand([&] { session_->Take(more); });
  Accept();
  EXPECT_EQ(leg().credit_bytes, 1000);
}

// What an owner that is going away had given out still arrives: it is left once it is quiet.
TEST_F(ConsumeSessionTest, TakesWhatIsOnItsWay) {
  GiveTo("replica-a");
  Open();
  Accept();
  const auto first = legs_.back();
  OnStrand([&] { first->listener.on_leaving(); });
  for (std::uint32_t index = 0; index < 3; ++index) {
    Pass(milliseconds(80));
    Deliver(*first, {Lease(index)});
  }
  EXPECT_EQ(held_.size(), 3U);
  EXPECT_FALSE(first->is_closed);
  Pass(milliseconds(200));
  EXPECT_TRUE(first->is_closed);
}

// One that is never quiet is left after a second.
TEST_F(ConsumeSessionTest, LeavesAnOwnerThatGoesOn) {
  GiveTo("replica-a");
  Open();
  Accept();
  const auto first = legs_.back();
  OnStrand([&] { first->listener.on_leaving(); });
  for (std::uint32_t index = 0; index < 20; ++index) {
    Pass(milliseconds(80));
    Deliver(*first, {Lease(index % 4)});
  }
  EXPECT_TRUE(first->is_closed);
}

// An owner that is going away is left when it has answered what it was sent, and the client hears nothing of it.
TEST_F(ConsumeSessionTest, LeavesAnOwnerThatDrains) {
  GiveTo("replica-a");
  Open();
  Accept();
  const auto first = legs_.back();
  Deliver(*first, {Lease(0)});
  Take(1, {TokenOf(Lease(0))});
  OnStrand([&] { first->listener.on_leaving(); });
  Pass(milliseconds(100));
  EXPECT_FALSE(first->is_closed);
  Pass(milliseconds(400));
  EXPECT_FALSE(first->is_closed);
  OnStrand([&] { first->listener.on_settled(1, {}); });
  Pass(milliseconds(200));
  EXPECT_TRUE(first->is_closed);
  EXPECT_EQ(legs_.size(), 2U);
  EXPECT_FALSE(end_.has_value());
}

// What is the client's own affair ends the stream: its queue is gone, its frame is bad; the latter behind the answers.
TEST_F(ConsumeSessionTest, EndsForItsOwnReasons) {
  GiveTo("replica-a");
  Open();
  Accept();
  Take(1, {TokenOf(Lease(0))});
  OnStrand([this] { session_->Fail(MakeError(Reason::kInvalidField, "bad frame")); });
  EXPECT_FALSE(end_.has_value());
  OnStrand([this] { leg().listener.on_settled(1, {}); });
  ASSERT_TRUE(end_.has_value());
  EXPECT_TRUE(HasReason(*end_, Reason::kInvalidField));
  EXPECT_TRUE(leg().is_closed);
  end_.reset();
  Open();
  Accept();
  OnStrand([this] { leg().listener.on_end(MakeError(Reason::kQueueNotFound, "deleted")); });
  ASSERT_TRUE(end_.has_value());
  EXPECT_TRUE(HasReason(*end_, Reason::kQueueNotFound));
}

// A drain is carried on to each owner, and its release is done by the one that there is when the client half-closes.
TEST_F(ConsumeSessionTest, DrainIsCarriedOn) {
  GiveTo("replica-a");
  Open();
  Accept();
  CheckedFrame drain;
  drain.drains = true;
  OnStrand([&] { session_->Take(drain); });
  EXPECT_TRUE(leg().is_stopped);
  OnStrand([this] { leg().listener.on_end(MakeError(Reason::kNoOwner, "gone")); });
  OnStrand([this] { session_->FinishInput(); });
  EXPECT_FALSE(end_.has_value());
  Pass(seconds(1));
  EXPECT_TRUE(leg().opening.is_stopped);
  Accept();
  EXPECT_TRUE(leg().is_released);
  OnStrand([this] { leg().listener.on_end(absl::OkStatus()); });
  ASSERT_TRUE(end_.has_value());
  EXPECT_TRUE(end_->ok());
}

// A stream that another replica relays does not move: that replica's session does.
TEST_F(ConsumeSessionTest, RelayedOneEnds) {
  Open({10, 1 << 20}, /*is_relayed=*/true);
  EXPECT_EQ(opened_, 1);
  GiveTo("replica-a");
  ASSERT_TRUE(end_.has_value());
  EXPECT_TRUE(HasReason(*end_, Reason::kNoOwner)) << *end_;
  EXPECT_THAT(legs_, IsEmpty());
}

// ---- What the next owner makes of it

class AnnouncementTest : public QueueEngineTest {
 protected:
  void Announce(std::vector<HeldLease> held, CheckedCredit credit = {10, 1 << 20}) {
    CheckedOpen open;
    open.credit = credit;
    Announce(std::move(held), open);
  }
  void Announce(std::vector<HeldLease> held, const CheckedOpen& open) {
    PostTo(environment_, queue_, [this, held, open] {
      QueueEngine::ConsumerCallbacks callbacks;
      callbacks.on_deliveries = [got = got_](const std::vector<Delivery>& deliveries, Duration) {
        for (const Delivery& delivery : deliveries) got->push_back(delivery);
      };
      callbacks.on_end = [](const absl::Status&) {};
      ASSERT_TRUE(queue_->AddConsumer(open, std::move(callbacks), held).ok());
    });
  }
  const std::shared_ptr<std::vector<Delivery>> got_ = std::make_shared<std::vector<Delivery>>();
};

// An owner behind one that crashed gives nothing out for a second; what is announced then stays its holder's, whose
// token settles it, and the rest comes.
TEST_F(AnnouncementTest, HeldLeasesSurviveACrash) {
  ASSERT_TRUE(Enqueue({"a", "b", "c"}).ok());
  const std::vector<Delivery> held = Dequeue(1, Duration::zero(), seconds(30));
  ASSERT_THAT(Texts(held), ElementsAre("a"));
  CrashAndBoot();
  const auto waiting = StartDequeue(1, seconds(10));
  Pass(milliseconds(100));
  EXPECT_FALSE(waiting->is_done());
  Announce({{held[0].token, 1, seconds(20)}}, {1, 1 << 20});
  Pass(seconds(2));
  ASSERT_TRUE(waiting->is_done());
  EXPECT_THAT(Texts((*waiting->result)->deliveries), ElementsAre("b"));
  EXPECT_THAT(Texts(*got_), ElementsAre("c"));
  EXPECT_EQ(Ack(held[0]), "ok");
  EXPECT_EQ(Stats().counts.total(), 2);
}

// The session of the owner had expired once before it crashed: leases from before that count as well.
TEST_F(AnnouncementTest, HeldLeasesSurviveASessionAndACrash) {
  ASSERT_TRUE(Enqueue({"a", "b"}).ok());
  const std::vector<Delivery> held = Dequeue(1, Duration::zero(), seconds(60));
  ASSERT_THAT(Texts(held), ElementsAre("a"));
  ensemble_.ExpireSession(replica_->client().session().session_id);
  Pass(seconds(5));
  ASSERT_TRUE(queue_->is_serving());
  ASSERT_GT(queue_->epoch(), static_cast<std::int64_t>(held[0].token.epoch));
  CrashAndBoot();
  Pass(milliseconds(100));
  Announce({{held[0].token, 1, seconds(40)}});
  Pass(seconds(2));
  EXPECT_THAT(Texts(*got_), ElementsAre("b"));
  EXPECT_EQ(Ack(held[0]), "ok");
}

// An owner that goes in good order before it has heard of all leases leaves the wait to the next one.
TEST_F(AnnouncementTest, TheWaitIsPassedOn) {
  ASSERT_TRUE(Enqueue({"a", "b"}).ok());
  const std::vector<Delivery> held = Dequeue(1, Duration::zero(), seconds(60));
  CrashAndBoot();
  Pass(milliseconds(100));
  ASSERT_TRUE(queue_->is_serving());
  Restart();
  Pass(milliseconds(100));
  Announce({{held[0].token, 1, seconds(40)}});
  Pass(seconds(2));
  EXPECT_THAT(Texts(*got_), ElementsAre("b"));
  EXPECT_EQ(Ack(held[0]), "ok");
}

// A stream that keeps its leases keeps those that it comes with, however long the log takes to be read.
TEST_F(AnnouncementTest, KeptLeasesOutlastTheReading) {
  ASSERT_TRUE(Enqueue({"a"}).ok());
  const std::vector<Delivery> held = Dequeue(1, Duration::zero(), seconds(60));
  CrashAndBoot();
  replica_->client().HoldNext([](const zk::Request& request) {
    return request.kind == zk::Request::Kind::kGet && request.path.find("/log/") != std::string::npos;
  });
  Pass(milliseconds(100));
  ASSERT_TRUE(queue_->is_serving());
  CheckedOpen open;
  open.credit = {10, 1 << 20};
  open.keeps_leases = true;
  open.lease = seconds(3);
  Announce({{held[0].token, 1, seconds(3)}}, open);
  Pass(seconds(4));
  replica_->client().ReleaseHeld();
  Pass(seconds(20));
  EXPECT_THAT(*got_, IsEmpty());
  EXPECT_EQ(Ack(held[0]), "ok");
}

// What nobody has announced comes again after the second.
TEST_F(AnnouncementTest, WhatIsNotAnnouncedComesAgain) {
  ASSERT_TRUE(Enqueue({"a"}).ok());
  ASSERT_THAT(Texts(Dequeue(1, Duration::zero(), seconds(30))), ElementsAre("a"));
  CrashAndBoot();
  EXPECT_THAT(Texts(Dequeue()), ElementsAre("a"));
}

// An announced lease lapses at its deadline, and gives its credit back to the stream that came with it.
TEST_F(AnnouncementTest, AnnouncedLeaseLapses) {
  ASSERT_TRUE(Enqueue({"a"}).ok());
  const std::vector<Delivery> held = Dequeue(1, Duration::zero(), seconds(30));
  CrashAndBoot();
  Pass(milliseconds(100));
  Announce({{held[0].token, 1, seconds(5)}}, {0, 1 << 20});
  Pass(seconds(4));
  EXPECT_THAT(*got_, IsEmpty());
  Pass(seconds(2));
  EXPECT_THAT(Texts(*got_), ElementsAre("a"));
}

// A token that is not good takes nothing, and its credit is there for other messages: a lease of long ago, one of a
// message that somebody else has by now, one of another queue, and one of a message that is settled.
TEST_F(AnnouncementTest, TokensProveNoMoreThanTheyDo) {
  ASSERT_TRUE(Enqueue({"a", "b"}).ok());
  const std::vector<Delivery> old = Dequeue(2, Duration::zero(), seconds(1));
  Pass(seconds(2));
  const std::vector<Delivery> current = Dequeue(2, Duration::zero(), seconds(60));
  ASSERT_THAT(Texts(current), ElementsAre("a", "b"));
  EXPECT_EQ(Ack(current[1]), "ok");
  ASSERT_TRUE(Enqueue({"c"}).ok());
  HeldLease foreign{old[0].token, 1, seconds(60)};
  foreign.token.source = Uid::Make(environment_);
  Announce({{old[0].token, 1, seconds(60)}, {current[1].token, 1, seconds(60)}, foreign}, {0, 1 << 20});
  Pass(seconds(1));
  EXPECT_THAT(Texts(*got_), ElementsAre("c"));
  EXPECT_EQ(Ack(current[0]), "ok");
}

// A stream of the same owner that comes back takes its lease along: released by it, the message is ready at once.
TEST_F(AnnouncementTest, SameOwnerRebinds) {
  ASSERT_TRUE(Enqueue({"a"}).ok());
  const auto first = OpenStream({1, 1 << 20});
  Pass(seconds(1));
  ASSERT_THAT(Texts(first->deliveries), ElementsAre("a"));
  const HeldLease held{first->deliveries[0].token, 1, seconds(20)};
  PostTo(environment_, queue_, [&] { queue_->RemoveConsumer(first->id, /*releases=*/false); });
  PostTo(environment_, queue_, [&] {
    QueueEngine::ConsumerCallbacks callbacks;
    callbacks.on_deliveries = [](const std::vector<Delivery>&, Duration) {};
    callbacks.on_end = [](const absl::Status&) {};
    CheckedOpen open;
    const auto again = queue_->AddConsumer(open, std::move(callbacks), {held});
    ASSERT_TRUE(again.ok());
    queue_->RemoveConsumer(*again, /*releases=*/true);
  });
  EXPECT_THAT(Texts(Dequeue()), ElementsAre("a"));
}

// Behind an owner that stopped in good order nobody waits: its leases are in the store.
TEST_F(AnnouncementTest, NoWaitAfterAHandOver) {
  ASSERT_TRUE(Enqueue({"a", "b"}).ok());
  ASSERT_THAT(Texts(Dequeue(1, Duration::zero(), seconds(30))), ElementsAre("a"));
  Restart();
  const Instant before = environment_.Now();
  EXPECT_THAT(Texts(Dequeue(1)), ElementsAre("b"));
  EXPECT_LT(environment_.Now() - before, QueueEngine::kAnnouncementPatience / 2);
}

// A stream that holds all that its credit allows, and a bit more, moves on; and whatever is announced, its credit is
// never more than a client may give.
TEST_F(AnnouncementTest, BoundedByCredit) {
  ASSERT_TRUE(Enqueue({"read"}).ok());
  ASSERT_THAT(Texts(Dequeue()), ElementsAre("read"));
  std::vector<HeldLease> held;
  for (std::uint32_t index = 0; index < 100; ++index) {
    held.push_back({{Uid::Make(environment_), 1, Position(1, 0, index), 1}, kCreditBytesMax, seconds(1)});
  }
  PostTo(environment_, queue_, [&] {
    CheckedOpen open;
    open.credit = {kCreditMessagesMax - 1, 1};
    QueueEngine::ConsumerCallbacks callbacks;
    callbacks.on_deliveries = [](const std::vector<Delivery>&, Duration) {};
    const auto id = queue_->AddConsumer(open, std::move(callbacks), held);
    ASSERT_TRUE(id.ok()) << id.status();
    EXPECT_EQ(queue_->CreditOf(*id).messages, kCreditMessagesMax);
    EXPECT_EQ(queue_->CreditOf(*id).bytes, kCreditBytesMax);
  });
}

}  // namespace
}  // namespace postkeeper
