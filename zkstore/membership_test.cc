// Membership: whoever lives is registered once and seen by all, and whoever has gone is missed, whatever happens on the
// way.
#include "zkstore/membership.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "zkstore/errors.h"
#include "zkstore/fault_injector.h"
#include "zkstore/simulated_client.h"
#include "zkstore/simulator.h"
#include "zkstore/text.h"

namespace postkeeper {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::UnorderedElementsAre;
using OnTheWay = zk::SimulatedClient::OnTheWay;

constexpr Duration kTimeout = seconds(10);
// Until a crashed replica's session has expired, with the server's tick.
constexpr Duration kExpiry = kTimeout + seconds(1);
// Until what the watch has told is read.
constexpr Duration kSoon = milliseconds(100);
constexpr Duration kPoll = kTimeout / Membership::kLooksPerTimeout + kSoon;

bool IsCreate(const zk::Request& request) { return request.kind == zk::Request::Kind::kCreate; }
bool IsList(const zk::Request& request) { return request.kind == zk::Request::Kind::kChildren; }
bool IsGet(const zk::Request& request) { return request.kind == zk::Request::Kind::kGet; }

// A client whose watches, while it is deaf, are never set, and nobody knows.
class DeafClient : public zk::FaultInjector {
 public:
  using FaultInjector::FaultInjector;
  void Submit(zk::Request request, Completion done) override {
    if (is_deaf) request.watcher = {};
    FaultInjector::Submit(std::move(request), std::move(done));
  }
  bool is_deaf = false;
};

// One process: a session behind a client that can be made to fail, and its membership.
class Member {
 public:
  Member(SimulatedEnvironment& environment, zk::SimulatedEnsemble& ensemble, std::string address)
      : environment_(environment), client_(ensemble), faults_(environment, client_, 7), address_(std::move(address)) {
    const ReplicaInfo self{.process = ProcessId::Make(environment),
                           .address = address_,
                           .version = "1.2.3",
                           .start_time = environment.WallNow()};
    Membership::Listener listener{.on_registered = [this] { ++registrations_; },
                                  .on_join = [this](const ReplicaInfo& replica) { Tell(Cat("+", replica.address)); },
                                  .on_leave = [this](const ReplicaInfo& replica) { Tell(Cat("-", replica.address)); },
                                  .on_trouble = [this](const absl::Status&) { ++troubles_; }};
    membership_ = std::make_shared<Membership>(environment, faults_, Layout("/r"), self, std::move(listener));
    environment.RunUntil([this] { return client_.session().state == zk::SessionState::kConnected; }, seconds(30));
  }

  // Nothing goes on working after Stop.
  ~Member() {
    const std::weak_ptr<Membership> gone = membership_;
    environment_.RunTask(membership_->Stop());
    has_ended_ = true;
    membership_.reset();
    environment_.AdvanceBy(zk::kRequestTimeout + seconds(1));
    EXPECT_TRUE(gone.expired());
  }

  absl::Status Join(std::optional<ProcessId> dead = std::nullopt) {
    const absl::Status joined = environment_.RunTask(membership_->Join(dead));
    if (joined.ok()) membership_->Start();
    return joined;
  }

  std::vector<std::string> Addresses() const {
    std::vector<std::string> addresses;
    if (const auto view = membership_->view()) {
      for (const ReplicaInfo& replica : view->replicas) addresses.push_back(replica.address);
    }
    std::sort(addresses.begin(), addresses.end());
    return addresses;
  }
  // What the listener was told since it was asked last.
  std::vector<std::string> Told() { return std::exchange(told_, {}); }

  Membership& operator*() { return *membership_; }
  Membership* operator->() { return membership_.get(); }
  zk::SimulatedClient& client() { return client_; }
  DeafClient& faults() { return faults_; }
  const ProcessId& process() const { return membership_->self().process; }
  int registrations() const { return registrations_; }
  int troubles() const { return troubles_; }

 private:
  void Tell(std::string text) {
    EXPECT_FALSE(has_ended_);
    told_.push_back(std::move(text));
  }

  SimulatedEnvironment& environment_;
  zk::SimulatedClient client_;
  DeafClient faults_;
  const std::string address_;
  std::shared_ptr<Membership> membership_;
  std::vector<std::string> told_;
  int registrations_ = 0;
  int troubles_ = 0;
  bool has_ended_ = false;
};

class MembershipTest : public testing::Test {
 protected:
  MembershipTest() : environment_(1), ensemble_(environment_), looker_(ensemble_) {
    environment_.AdvanceBy(seconds(1));
    environment_.RunTask(looker_.Create("/r", ""));
    environment_.RunTask(looker_.Create(layout_.Replicas(), ""));
  }

  std::unique_ptr<Member> MakeMember(std::string address) {
    return std::make_unique<Member>(environment_, ensemble_, std::move(address));
  }
  std::unique_ptr<Member> Joined(std::string address) {
    std::unique_ptr<Member> member = MakeMember(std::move(address));
    EXPECT_TRUE(member->Join().ok());
    environment_.AdvanceBy(kSoon);
    return member;
  }

  // The session that the registration belongs to; 0 = there is none.
  std::int64_t OwnerOf(const Member& member) {
    return environment_.RunTask(looker_.Exists(layout_.Replica(member.process()))).stat.ephemeral_owner;
  }
  std::vector<std::string> Registered() { return environment_.RunTask(looker_.Children(layout_.Replicas())).children; }

  SimulatedEnvironment environment_;
  zk::SimulatedEnsemble ensemble_;
  zk::SimulatedClient looker_;
  const Layout layout_{"/r"};
};

// Two replicas know all of one another, and are told who comes and goes: a clean end at once, a crash when its session
// has expired and not before.
TEST_F(MembershipTest, ComesAndGoes) {
  const auto a = Joined("a");
  EXPECT_THAT(a->Told(), ElementsAre("+a"));
  auto b = Joined("b");
  EXPECT_THAT(a->Told(), ElementsAre("+b"));
  EXPECT_THAT(b->Told(), UnorderedElementsAre("+a", "+b"));
  const Membership::View view = *(*a)->view();
  EXPECT_THAT(view.replicas, UnorderedElementsAre((*a)->self(), (*b)->self()));
  EXPECT_TRUE(view.is_complete);
  EXPECT_EQ((*a)->size(), 2u);

  b->client().Close(seconds(1));
  environment_.AdvanceBy(kSoon);
  EXPECT_THAT(a->Told(), ElementsAre("-b"));

  const auto c = Joined("c");
  EXPECT_THAT(a->Told(), ElementsAre("+c"));
  c->client().Abandon();
  environment_.AdvanceBy(kTimeout - seconds(4));
  EXPECT_THAT(a->Addresses(), ElementsAre("a", "c"));
  environment_.AdvanceBy(kExpiry - kTimeout + seconds(4));
  EXPECT_THAT(a->Told(), ElementsAre("-c"));
  EXPECT_FALSE((*a)->Find(c->process())->is_registered);
}

// A registration belongs to the present session, and to no other; the listener hears of each session once.
TEST_F(MembershipTest, RegistersUnderEachSession) {
  const auto a = Joined("a");
  const auto b = Joined("b");
  EXPECT_EQ(OwnerOf(*a), a->client().session().session_id);
  for (int round = 2; round < 5; ++round) {
    const std::int64_t before = a->client().session().session_id;
    ASSERT_TRUE(ensemble_.ExpireSession(before));
    environment_.AdvanceBy(seconds(1));
    EXPECT_NE(a->client().session().session_id, before);
    EXPECT_EQ(OwnerOf(*a), a->client().session().session_id);
    EXPECT_EQ(a->registrations(), round);
    EXPECT_THAT(b->Addresses(), ElementsAre("a", "b"));
    EXPECT_TRUE((*a)->Find(a->process())->is_registered);
  }
  EXPECT_EQ(Registered().size(), 2u);
  EXPECT_EQ(b->registrations(), 1);
}

// The registration is lost on its way, or its reply is: it is there once, under the present session.
TEST_F(MembershipTest, RegistrationSurvivesLostReplies) {
  for (const bool is_carried_out : {false, true}) {
    const auto member = MakeMember(is_carried_out ? "late" : "lost");
    if (is_carried_out) {
      member->client().LoseReplyToNext(IsCreate);
    } else {
      member->client().LoseNext(IsCreate);
    }
    EXPECT_TRUE(HasReason(environment_.RunTask((*member)->Join(std::nullopt)), Reason::kZookeeperUnavailable));
    EXPECT_EQ((*member)->view(), std::nullopt);
    EXPECT_EQ((*member)->Find(member->process()), std::nullopt);
    environment_.AdvanceBy(seconds(1));
    ASSERT_TRUE(member->Join().ok());
    EXPECT_EQ(OwnerOf(*member), member->client().session().session_id);
    EXPECT_EQ(member->registrations(), 1);
    member->client().Close(seconds(1));
    EXPECT_THAT(Registered(), IsEmpty());
  }
}

// A registration of an earlier session that is still there (a server that lags behind) is replaced, in one step: no
// copy of the request that arrives late can leave the replica without one.
TEST_F(MembershipTest, ReplacesTheOneOfAnEarlierSession) {
  const auto a = MakeMember("a");
  environment_.RunTask(looker_.Create(layout_.Replica(a->process()), "old", zk::CreateMode::kEphemeral));
  a->client().HoldNext([](const zk::Request& request) { return request.kind == zk::Request::Kind::kMulti; });
  std::optional<absl::Status> joined;
  auto join = [](Task<absl::Status> joining, std::optional<absl::Status>* to) -> Task<void> {
    *to = co_await std::move(joining);
  };
  Spawn(environment_.executor(), join((*a)->Join(std::nullopt), &joined));
  environment_.AdvanceBy(seconds(1));
  a->client().Disconnect(OnTheWay::kHeld);
  environment_.AdvanceBy(seconds(1));
  ASSERT_TRUE(joined.has_value());
  EXPECT_FALSE(joined->ok());
  ASSERT_TRUE(a->Join().ok());
  EXPECT_EQ(OwnerOf(*a), a->client().session().session_id);
  EXPECT_GT(a->client().ReleaseHeld(), 0u);
  environment_.AdvanceBy(seconds(1));
  EXPECT_EQ(OwnerOf(*a), a->client().session().session_id);
}

// Whoever is not registered counts as gone, so a registration that somebody removes is made again.
TEST_F(MembershipTest, ComesBackWhenRemoved) {
  const auto a = Joined("a");
  const auto b = Joined("b");
  environment_.RunTask(looker_.Delete(layout_.Replica(a->process()), zk::kAnyVersion));
  environment_.AdvanceBy(kSoon);
  EXPECT_EQ(OwnerOf(*a), a->client().session().session_id);
  EXPECT_EQ(a->registrations(), 2);
  EXPECT_THAT(b->Addresses(), ElementsAre("a", "b"));
}

// A process that cannot run any more is not waited for.
TEST_F(MembershipTest, RemovesItsDeadPredecessor) {
  const auto dead = Joined("dead");
  dead->client().Abandon();
  const auto a = MakeMember("a");
  ASSERT_TRUE(a->Join(dead->process()).ok());
  EXPECT_THAT(a->Addresses(), ElementsAre("a"));
  const auto b = MakeMember("b");
  EXPECT_TRUE(b->Join(dead->process()).ok()) << "it may be gone already";
}

// While ZooKeeper cannot be reached the table stays, and says how old it is; then it is true again.
TEST_F(MembershipTest, SaysHowOldItIs) {
  const auto a = Joined("a");
  const auto b = Joined("b");
  EXPECT_LT((*a)->view()->age, kPoll);
  a->client().SetReachable(false);
  environment_.AdvanceBy(seconds(5));
  b->client().Close(seconds(1));
  environment_.AdvanceBy(seconds(60));
  EXPECT_THAT(a->Addresses(), ElementsAre("a", "b"));
  EXPECT_TRUE((*a)->Find(b->process())->is_registered);
  EXPECT_GE((*a)->Find(b->process())->age, seconds(64));
  a->client().SetReachable(true);
  environment_.AdvanceBy(seconds(2));
  EXPECT_THAT(a->Addresses(), ElementsAre("a"));
  EXPECT_LT((*a)->view()->age, kPoll);
  EXPECT_EQ(OwnerOf(*a), a->client().session().session_id);
  EXPECT_EQ(a->registrations(), 2);
}

// The watch tells at once; where it fails, the poll finds what it has not told.
TEST_F(MembershipTest, PollsToo) {
  const auto a = MakeMember("a");
  a->faults().is_deaf = true;
  ASSERT_TRUE(a->Join().ok());
  environment_.AdvanceBy(kSoon);
  const auto b = Joined("b");
  EXPECT_THAT(a->Addresses(), ElementsAre("a"));
  environment_.AdvanceBy(kPoll);
  EXPECT_THAT(a->Addresses(), ElementsAre("a", "b"));
}

// A list that cannot be read, or a replica that cannot be described, is asked for again.
TEST_F(MembershipTest, LooksAgain) {
  const auto a = Joined("a");
  a->faults().AddRule({.fault = zk::Fault::kLostBefore, .matches = IsList, .times_max = 3});
  a->faults().AddRule({.fault = zk::Fault::kLostAfter, .matches = IsGet, .times_max = 2});
  const auto b = Joined("b");
  environment_.AdvanceBy(seconds(3));
  EXPECT_THAT(a->Addresses(), ElementsAre("a", "b"));
  EXPECT_GE(a->troubles(), 5);
  EXPECT_EQ(a->faults().fired(zk::Fault::kLostBefore) + a->faults().fired(zk::Fault::kLostAfter), 5);

  // The connection breaks, and with it goes what was on its way: the watch is set again by the client.
  a->client().Disconnect();
  const auto c = Joined("c");
  environment_.AdvanceBy(kPoll);
  EXPECT_THAT(a->Addresses(), ElementsAre("a", "b", "c"));
}

// After Stop the listener hears nothing more, also of a look that was on its way.
TEST_F(MembershipTest, StopsTelling) {
  const auto a = Joined("a");
  a->client().HoldNext(IsGet);
  const auto b = Joined("b");
  EXPECT_THAT(a->Told(), ElementsAre("+a"));
  environment_.RunTask((*a)->Stop());
  EXPECT_GT(a->client().ReleaseHeld(), 0u);
  environment_.AdvanceBy(seconds(1));
  EXPECT_THAT(a->Addresses(), ElementsAre("a", "b"));
  EXPECT_THAT(a->Told(), IsEmpty());
}

// However long it looks, and however often the list changes, there is one watch.
TEST_F(MembershipTest, WatchesOnce) {
  const auto a = Joined("a");
  const std::size_t one = layout_.Replicas().size();
  environment_.AdvanceBy(seconds(600));
  EXPECT_EQ(a->client().watched_path_bytes(), one);
  for (int i = 0; i < 50; ++i) {
    environment_.RunTask(
        looker_.Create(layout_.Replica(ProcessId::Make(environment_)), "", zk::CreateMode::kEphemeral));
    environment_.AdvanceBy(milliseconds(i));
  }
  environment_.AdvanceBy(kSoon);
  EXPECT_EQ((*a)->size(), 51u);
  EXPECT_EQ(a->client().watched_path_bytes(), one);
}

// A burst of changes costs a bounded number of looks.
TEST_F(MembershipTest, LooksAtMostSoOften) {
  const auto a = Joined("a");
  const std::int64_t before = a->client().requests_sent();
  const std::string path = layout_.Replica(ProcessId::Make(environment_));
  const Instant begun = environment_.Now();
  for (int i = 0; i < 1000; ++i) {
    environment_.RunTask(looker_.Create(path, "", zk::CreateMode::kEphemeral));
    environment_.RunTask(looker_.Delete(path, zk::kAnyVersion));
  }
  const std::int64_t looks = (environment_.Now() - begun) / Membership::kLookPauseMin;
  EXPECT_LT(looks, 500);
  EXPECT_LE(a->client().requests_sent() - before, 2 * (looks + 2));
  environment_.AdvanceBy(kSoon);
  EXPECT_THAT(a->Addresses(), ElementsAre("a"));
}

// Names that are none are passed over; a registration that cannot be read counts, without its details.
TEST_F(MembershipTest, StrangersDoNotHarm) {
  const ProcessId strange = ProcessId::Make(environment_);
  environment_.RunTask(looker_.Create(Cat(layout_.Replicas(), "/something else"), ""));
  environment_.RunTask(looker_.Create(layout_.Replica(strange), "\xff\xff\xff", zk::CreateMode::kEphemeral));
  const auto a = Joined("a");
  EXPECT_THAT(a->Addresses(), ElementsAre("", "a"));
  EXPECT_TRUE((*a)->Find(strange)->is_registered);
}

// Of more replicas than it keeps it says that it does not know them, and never that they are not registered.
TEST_F(MembershipTest, KeepsAtMostSoMany) {
  std::vector<ProcessId> all;
  for (std::size_t i = 0; i < Membership::kReplicasMax + 5; ++i) {
    all.push_back(ProcessId::Make(environment_));
    environment_.RunTask(looker_.Create(layout_.Replica(all.back()), "", zk::CreateMode::kEphemeral));
  }
  const auto a = Joined("a");
  EXPECT_EQ((*a)->size(), Membership::kReplicasMax);
  EXPECT_FALSE((*a)->view()->is_complete);
  std::size_t known = 0;
  for (const ProcessId& process : all) {
    const std::optional<Membership::Standing> standing = (*a)->Find(process);
    if (!standing) continue;
    EXPECT_TRUE(standing->is_registered);
    ++known;
  }
  EXPECT_GE(known, Membership::kReplicasMax - 1);
  looker_.Close(seconds(1));
  environment_.AdvanceBy(seconds(1));
  EXPECT_TRUE((*a)->view()->is_complete);
  EXPECT_THAT(a->Addresses(), ElementsAre("a"));
}

// Under random faults of every kind (lost requests and replies, broken connections, expired sessions, silence, crashes)
// all that live are registered once, under their present session, and every one of them sees exactly those.
TEST_F(MembershipTest, RandomFaults) {
  for (std::uint64_t seed = 1; seed <= 30; ++seed) {
    SimulatedRandom random(seed);
    std::vector<std::unique_ptr<Member>> members;
    for (int i = 0; i < 4; ++i) members.push_back(Joined(Cat("m", i)));
    std::size_t crashed = members.size();
    for (int step = 0; step < 40; ++step) {
      const std::size_t chosen = random.Below(members.size());
      zk::SimulatedClient& client = members[chosen]->client();
      switch (chosen == crashed ? 9 : random.Below(7)) {
        case 0:
          client.Disconnect(random.Chance(0.5) ? OnTheWay::kLost : OnTheWay::kDelivered);
          break;
        case 1:
          ensemble_.ExpireSession(client.session().session_id);
          break;
        case 2:
          client.LoseNext([](const zk::Request&) { return true; });
          break;
        case 3:
          client.LoseReplyToNext([](const zk::Request&) { return true; });
          break;
        case 4:
          client.SetReachable(false);
          break;
        case 5:
          client.SetReachable(true);
          break;
        case 6:
          if (crashed == members.size() && step > 20) {
            client.Abandon(OnTheWay::kDelivered);
            crashed = chosen;
          }
          break;
        default:
          break;
      }
      environment_.AdvanceBy(random.Between(Duration::zero(), seconds(3)));
    }
    std::vector<std::string> expected;
    for (std::size_t i = 0; i < members.size(); ++i) {
      if (i == crashed) continue;
      members[i]->client().SetReachable(true);
      expected.push_back(Cat("m", i));
    }
    environment_.AdvanceBy(2 * kExpiry);
    for (std::size_t i = 0; i < members.size(); ++i) {
      if (i == crashed) continue;
      EXPECT_EQ(members[i]->Addresses(), expected) << "seed " << seed;
      EXPECT_EQ(OwnerOf(*members[i]), members[i]->client().session().session_id) << "seed " << seed;
    }
    for (const auto& member : members) member->client().Close(seconds(1));
    EXPECT_THAT(Registered(), IsEmpty()) << "seed " << seed;
  }
}

}  // namespace
}  // namespace postkeeper
