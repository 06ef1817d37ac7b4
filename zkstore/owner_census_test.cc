// The census counts what the owner records say, and costs ZooKeeper little however often it is asked for.
#include "zkstore/owner_census.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "zkstore/catalog.h"
#include "zkstore/errors.h"
#include "zkstore/simulated_client.h"
#include "zkstore/simulator.h"
#include "zkstore/text.h"

namespace postkeeper {
namespace {

using std::chrono::seconds;
using testing::IsEmpty;
using testing::Pair;
using testing::UnorderedElementsAre;

class OwnerCensusTest : public testing::Test {
 protected:
  OwnerCensusTest()
      : environment_(1),
        ensemble_(environment_),
        client_(ensemble_),
        catalog_(environment_, client_, layout_),
        census_(std::make_shared<OwnerCensus>(environment_, client_, layout_)) {
    environment_.AdvanceBy(seconds(1));
    EXPECT_TRUE(environment_.RunTask(catalog_.Open()).ok());
  }

  LogEntry Create(int number) {
    const LogName name{LogKind::kQueue, "default", Cat("q", number)};
    return environment_.RunTask(catalog_.Create(name, QueueSettings()))->entry;
  }
  OwnerView Take(const LogEntry& entry, const ProcessId& process) {
    std::string address = "here";
    return *environment_.RunTask(TakeOwnership(client_, layout_, entry.uid, process, address));
  }
  absl::StatusOr<std::shared_ptr<const OwnerCensus::Counts>> Ask() { return environment_.RunTask(census_->Take()); }
  // When what was counted last is not given again.
  OwnerCensus::Counts Count() {
    environment_.AdvanceBy(seconds(30));
    return **Ask();
  }

  SimulatedEnvironment environment_;
  zk::SimulatedEnsemble ensemble_;
  zk::SimulatedClient client_;
  const Layout layout_{"/postkeeper"};
  Catalog catalog_;
  std::shared_ptr<OwnerCensus> census_;
  const ProcessId a_ = ProcessId::Make(environment_);
  const ProcessId b_ = ProcessId::Make(environment_);
};

// Each log counts for its owner; free and deleted ones, and unreadable records, for nobody.
TEST_F(OwnerCensusTest, CountsOwners) {
  EXPECT_THAT(Count(), IsEmpty());
  std::vector<LogEntry> logs;
  for (int i = 0; i < 200; ++i) logs.push_back(Create(i));
  EXPECT_THAT(Count(), IsEmpty());
  for (int i = 0; i < 100; ++i) Take(logs[i], a_);
  for (int i = 100; i < 150; ++i) Take(logs[i], b_);
  EXPECT_THAT(Count(), UnorderedElementsAre(Pair(a_, 100), Pair(b_, 50)));
  const OwnerView held = Take(logs[0], a_);
  ASSERT_TRUE(environment_.RunTask(catalog_.Delete(logs[0], held)).ok());
  environment_.RunTask(client_.Set(layout_.Owner(logs[1].uid), "\xff\xff", zk::kAnyVersion));
  environment_.RunTask(client_.Create(Cat(layout_.Data(), "/no log"), ""));
  EXPECT_THAT(Count(), UnorderedElementsAre(Pair(a_, 98), Pair(b_, 50)));
}

// Whoever asks while it is counted, or shortly after, gets the same count; nothing is read for it.
TEST_F(OwnerCensusTest, CountsOnceForAll) {
  for (int i = 0; i < 100; ++i) Take(Create(i), a_);
  const std::int64_t before = client_.requests_sent();
  int answers = 0;
  auto ask = [](std::shared_ptr<OwnerCensus> census, int* count) -> Task<void> {
    const auto counts = co_await census->Take();
    if (counts.ok()) ++*count;
  };
  for (int i = 0; i < 50; ++i) Spawn(environment_.executor(), ask(census_, &answers));
  environment_.AdvanceBy(seconds(5));
  EXPECT_EQ(answers, 50);
  EXPECT_EQ(client_.requests_sent() - before, 101);
  EXPECT_TRUE(Ask().ok());
  const std::int64_t counted = client_.requests_sent();
  for (int i = 0; i < 50; ++i) EXPECT_TRUE(Ask().ok());
  EXPECT_EQ(client_.requests_sent(), counted);
}

// When ZooKeeper does not answer, all that ask are told so, and later ones are not told it for ever.
TEST_F(OwnerCensusTest, SaysThatItCannotCount) {
  for (int i = 0; i < 100; ++i) Take(Create(i), a_);
  client_.LoseNext([](const zk::Request& request) {
    return request.kind == zk::Request::Kind::kGet && request.path.ends_with("/owner");
  });
  EXPECT_TRUE(HasReason(Ask().status(), Reason::kZookeeperUnavailable));
  EXPECT_TRUE(HasReason(Ask().status(), Reason::kZookeeperUnavailable));
  environment_.AdvanceBy(seconds(10));
  EXPECT_THAT(**Ask(), UnorderedElementsAre(Pair(a_, 100)));
}

}  // namespace
}  // namespace postkeeper
