#include "zkstore/fault_injector.h"

#include <string>
#include <vector>

#include "zkstore/simulator.h"

namespace postkeeper::zk {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ElementsAre;

class FaultInjectorTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(environment_.RunUntil([&] { return client_.session().state == SessionState::kConnected; }, seconds(5)));
  }

  static std::function<bool(const Request&)> OnPath(std::string path) {
    return [path = std::move(path)](const Request& request) { return request.path == path; };
  }
  void Create(std::string path) {
    Request request;
    request.kind = Request::Kind::kCreate;
    request.path = path;
    injector_.Submit(std::move(request), [this, path](Response response) {
      outcomes_.push_back(path + " " + std::string(CodeName(response.code)));
    });
  }

  std::vector<std::string> outcomes_;  // outlives the clients, which write into it to the end
  SimulatedEnvironment environment_{5};
  SimulatedEnsemble ensemble_{environment_};
  SimulatedClient client_{ensemble_};
  FaultInjector injector_{environment_, client_, 11};
};

// Without rules the injector changes nothing.
TEST_F(FaultInjectorTest, PassesEverythingThrough) {
  EXPECT_EQ(environment_.RunTask(injector_.Create("/a", "data")).path, "/a");
  EXPECT_EQ(environment_.RunTask(injector_.Get("/a")).data, "data");
  EXPECT_EQ(injector_.session().session_id, client_.session().session_id);
  EXPECT_EQ(injector_.fired(Fault::kLostBefore), 0);
}

// A request that fails before the operation is reported lost and has done nothing.
TEST_F(FaultInjectorTest, LostBeforeDoesNothing) {
  injector_.AddRule({.fault = Fault::kLostBefore, .matches = OnPath("/a"), .times_max = 1});
  EXPECT_EQ(environment_.RunTask(injector_.Create("/a", "")).code, Code::kConnectionLoss);
  EXPECT_EQ(ensemble_.tree().FindData("/a"), nullptr);
  EXPECT_EQ(environment_.RunTask(injector_.Create("/a", "")).code, Code::kOk);
  EXPECT_EQ(injector_.fired(Fault::kLostBefore), 1);
}

// A request that fails after the operation is reported lost, though it was carried out; its watch is not set.
TEST_F(FaultInjectorTest, LostAfterIsDone) {
  injector_.AddRule({.fault = Fault::kLostAfter, .times_max = 2});
  Response lost = environment_.RunTask(injector_.Create("/a", "data"));
  EXPECT_EQ(lost.code, Code::kConnectionLoss);
  EXPECT_EQ(lost.path, "");
  ASSERT_NE(ensemble_.tree().FindData("/a"), nullptr);
  EXPECT_EQ(environment_.RunTask(injector_.Get("/a", [](WatchEvent) { FAIL(); })).code, Code::kConnectionLoss);
  EXPECT_EQ(client_.watched_path_bytes(), 0u);
  EXPECT_EQ(injector_.fired(Fault::kLostAfter), 2);
}

// Answers come in the order of the requests, also those of requests that were never sent.
TEST_F(FaultInjectorTest, LossesKeepTheirPlace) {
  injector_.AddRule({.fault = Fault::kLostBefore, .matches = OnPath("/b")});
  for (const char* path : {"/a", "/b", "/c", "/b", "/d"}) Create(path);
  environment_.AdvanceBy(seconds(1));
  EXPECT_THAT(outcomes_, ElementsAre("/a OK", "/b CONNECTION_LOSS", "/c OK", "/b CONNECTION_LOSS", "/d OK"));
}

// A delay keeps back its request and all behind it, and their order.
TEST_F(FaultInjectorTest, DelayKeepsTheOrder) {
  injector_.AddRule({.fault = Fault::kDelay, .matches = OnPath("/b"), .delay = seconds(2)});
  injector_.AddRule({.fault = Fault::kLostBefore, .matches = OnPath("/c")});
  for (const char* path : {"/a", "/b", "/c", "/d"}) Create(path);
  environment_.AdvanceBy(milliseconds(1900));
  EXPECT_THAT(outcomes_, ElementsAre("/a OK"));
  EXPECT_EQ(ensemble_.tree().FindData("/d"), nullptr);
  environment_.AdvanceBy(milliseconds(200));
  EXPECT_THAT(outcomes_, ElementsAre("/a OK", "/b OK", "/c CONNECTION_LOSS", "/d OK"));
  EXPECT_EQ(injector_.fired(Fault::kDelay), 1);
}

// With a probability, as many fail as the dice say: the same ones for the same seed.
TEST_F(FaultInjectorTest, ProbabilityFollowsFromTheSeed) {
  auto run = [this](std::uint64_t seed) {
    FaultInjector injector(environment_, client_, seed);
    injector.AddRule({.fault = Fault::kLostBefore, .probability = 0.3});
    std::vector<bool> failed;
    for (int i = 0; i < 200; ++i) {
      failed.push_back(environment_.RunTask(injector.Exists("/")).code == Code::kConnectionLoss);
    }
    EXPECT_EQ(injector.fired(Fault::kLostBefore), std::count(failed.begin(), failed.end(), true));
    EXPECT_GT(injector.fired(Fault::kLostBefore), 30);
    EXPECT_LT(injector.fired(Fault::kLostBefore), 90);
    return failed;
  };
  EXPECT_EQ(run(1), run(1));
  EXPECT_NE(run(1), run(2));
}

// Closing ends what a delay holds back, exactly once, and the wrapped client.
TEST_F(FaultInjectorTest, CloseEndsWhatIsHeldBack) {
  injector_.AddRule({.fault = Fault::kDelay, .matches = OnPath("/a"), .delay = seconds(2)});
  Create("/a");
  Create("/b");
  injector_.Close(seconds(1));
  Create("/c");
  environment_.AdvanceBy(seconds(5));
  EXPECT_THAT(outcomes_, ElementsAre("/a CLOSED", "/b CLOSED", "/c CLOSED"));
  EXPECT_EQ(ensemble_.tree().FindData("/a"), nullptr);
  EXPECT_THAT(ensemble_.sessions(), ElementsAre());
}

}  // namespace
}  // namespace postkeeper::zk
