// What only CClient can show: deadlines, windows, restarts of the server, chroots, log lines, closing.
#include "zkstore/c_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <thread>

#include "tests/contract/c_client_world.h"
#include "tests/support/tcp_relay.h"
#include "tests/support/zookeeper_server.h"
#include "zkstore/text.h"

namespace postkeeper::zk {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::AnyOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

// A server of its own, since these tests stop it, let it hang, and start it again. One for all of them.
class CClientTest : public testing::Test, public CClientWorld {
 protected:
  static void SetUpTestSuite() { server = new ZookeeperServer(); }
  static void TearDownTestSuite() { delete server; }
  void SetUp() override {
    server->Start();
    options_.hosts = server->hosts();
  }
  void TearDown() override { server->Resume(); }

  Duration TimeOf(const std::function<void()>& function) {
    Instant start = environment_.Now();
    function();
    return environment_.Now() - start;
  }

  static ZookeeperServer* server;
};

ZookeeperServer* CClientTest::server = nullptr;

constexpr WorldClientOptions kPatient{.session_timeout = seconds(20)};

// ---- deadlines ----

// A request that gets no answer ends with kTimeout at its deadline; the answer that comes later is dropped, also that
// of a multi, whose results are written when it comes; and the client goes on as before.
TEST_F(CClientTest, DeadlinesHoldWhileTheServerHangs) {
  std::string root = MakeRoot();
  Peer peer(*this, kPatient);
  server->Pause();
  auto set =
      peer.Send({.kind = Request::Kind::kSet, .path = root, .data = "late", .timeout = milliseconds(200)}, "set");
  auto multi = peer.Send({.kind = Request::Kind::kMulti,
                          .ops = {Op::Create(root + "/b-", "", CreateMode::kPersistentSequential)},
                          .timeout = milliseconds(100)},
                         "multi");
  auto patient = peer.Send({.kind = Request::Kind::kExists, .path = root, .timeout = seconds(20)}, "exists");
  Duration waited = TimeOf([&] {
    EXPECT_EQ(peer.Await(set).code, Code::kTimeout);
    EXPECT_EQ(peer.Await(multi).code, Code::kTimeout);
  });
  EXPECT_GE(waited, milliseconds(190));
  EXPECT_LT(waited, seconds(2));
  EXPECT_THAT(peer.Await(multi).results, IsEmpty());
  server->Resume();
  EXPECT_EQ(peer.Await(patient).stat.version, 1);  // what had timed out was carried out
  EXPECT_THAT(peer.notes(), ElementsAre("multi: TIMEOUT", "set: TIMEOUT", "exists: OK"));
  EXPECT_EQ(peer.Children(root).children.size(), 1u);
}

// A request that has timed out tells its watcher nothing any more, but the C client's watch is still counted.
TEST_F(CClientTest, ATimedOutWatchIsSilentButCounted) {
  std::string root = MakeRoot();
  Peer peer(*this, kPatient);
  Peer other(*this, kPatient);
  server->Pause();
  auto get = peer.Send(
      {.kind = Request::Kind::kGet, .path = root, .watcher = peer.Noting("watch"), .timeout = milliseconds(50)});
  EXPECT_EQ(peer.Await(get).code, Code::kTimeout);
  server->Resume();
  peer.Sync(root);
  EXPECT_EQ(peer.client().watched_path_bytes(), root.size());
  other.Set(root, "x");
  peer.Sync(root);
  EXPECT_EQ(peer.client().watched_path_bytes(), 0u);
  EXPECT_THAT(peer.notes(), IsEmpty());
}

// A server that hangs for two thirds of the session's timeout is given up: what was on its way ends then, and what is
// submitted later is refused at once, long before its deadline.
TEST_F(CClientTest, AHangingServerIsGivenUp) {
  std::string root = MakeRoot();
  Peer peer(*this, {.session_timeout = milliseconds(1500)});
  server->Pause();
  auto get = peer.Send({.kind = Request::Kind::kGet, .path = root});
  EXPECT_EQ(peer.Await(get).code, Code::kConnectionLoss);
  EXPECT_EQ(peer.Get(root).code, Code::kNotConnected);
  server->Resume();
  ASSERT_TRUE(peer.WaitForSession(SessionState::kConnected));
  EXPECT_EQ(peer.Get(root).code, Code::kOk);
}

// ---- the window ----

// While the server hangs, no more than the window is on its way; of what waits, settling goes first and bulk reads
// last, each in the order submitted.
TEST_F(CClientTest, PrioritiesDecideWhoGoesFirst) {
  std::string root = MakeRoot();
  Peer peer(*this, kPatient);
  std::vector<std::string> expected;
  std::vector<Peer::Pending> pending;
  auto submit = [&](Priority priority, const std::string& label) {
    pending.push_back(peer.Send({.kind = Request::Kind::kExists, .path = root, .priority = priority}, label));
  };
  server->Pause();
  for (int i = 0; i < Client::kInFlightRequestsMax; ++i) submit(Priority::kBulk, "window");
  for (int i = 0; i < 20; ++i) {
    submit(Priority::kBulk, Cat("bulk ", i));
    submit(Priority::kNormal, Cat("normal ", i));
    submit(Priority::kSettle, Cat("settle ", i));
  }
  server->Resume();
  for (const Peer::Pending& one : pending) EXPECT_EQ(peer.Await(one).code, Code::kOk);
  for (int i = 0; i < Client::kInFlightRequestsMax; ++i) expected.push_back("window: OK");
  for (const char* name : {"settle ", "normal ", "bulk "}) {
    for (int i = 0; i < 20; ++i) expected.push_back(Cat(name, i, ": OK"));
  }
  EXPECT_EQ(peer.notes(), expected);
}

// The window counts bytes too: a settle that comes after 20 MiB of bulk writes waits for at most 8 MiB of them.
TEST_F(CClientTest, TheWindowCountsBytes) {
  std::string root = MakeRoot();
  Peer peer(*this, kPatient);
  constexpr std::size_t kBytes = 500'000;
  constexpr std::size_t kFits = Client::kInFlightBytesMax / kBytes;
  std::vector<Peer::Pending> pending;
  server->Pause();
  for (int i = 0; i < 40; ++i) {
    pending.push_back(peer.Send(
        {.kind = Request::Kind::kSet, .path = root, .data = std::string(kBytes, 'x'), .priority = Priority::kBulk},
        "bulk"));
  }
  pending.push_back(peer.Send({.kind = Request::Kind::kExists, .path = root, .priority = Priority::kSettle}, "settle"));
  server->Resume();
  for (const Peer::Pending& one : pending) EXPECT_EQ(peer.Await(one).code, Code::kOk);
  std::vector<std::string> notes = peer.notes();
  auto settle = std::find(notes.begin(), notes.end(), "settle: OK") - notes.begin();
  EXPECT_EQ(static_cast<std::size_t>(settle), kFits);
}

// Requests that wait for the window are bounded: one more than the maximum is refused, and the others are not harmed.
TEST_F(CClientTest, WaitingRequestsAreBounded) {
  std::string root = MakeRoot();
  Peer peer(*this, kPatient);
  constexpr int kAll = Client::kInFlightRequestsMax + Client::kQueuedRequestsMax;
  std::vector<Peer::Pending> pending;
  server->Pause();
  for (int i = 0; i < kAll; ++i) {
    pending.push_back(peer.Send({.kind = Request::Kind::kExists, .path = root, .timeout = seconds(60)}));
  }
  EXPECT_EQ(peer.Exists(root).code, Code::kNotConnected);
  server->Resume();
  for (const Peer::Pending& one : pending) ASSERT_EQ(peer.Await(one).code, Code::kOk);
}

// A request that times out while it waits for the window is never sent.
TEST_F(CClientTest, TimedOutInTheQueueIsNotSent) {
  std::string root = MakeRoot();
  Peer peer(*this, kPatient);
  std::vector<Peer::Pending> pending;
  server->Pause();
  for (int i = 0; i < Client::kInFlightRequestsMax; ++i) {
    pending.push_back(peer.Send({.kind = Request::Kind::kExists, .path = root}));
  }
  auto late = peer.Send({.kind = Request::Kind::kSet, .path = root, .data = "x", .timeout = milliseconds(50)});
  EXPECT_EQ(peer.Await(late).code, Code::kTimeout);
  server->Resume();
  for (const Peer::Pending& one : pending) peer.Await(one);
  EXPECT_EQ(peer.Get(root).stat.version, 0);
}

// ---- restarts and sessions ----

// After a restart of the server the session goes on, its ephemerals live, and its watches fire.
TEST_F(CClientTest, SessionsOutliveARestartOfTheServer) {
  std::string root = MakeRoot();
  Peer peer(*this, {.session_timeout = seconds(6)});
  const std::int64_t session = peer.session_id();
  peer.Create(root + "/e", "", CreateMode::kEphemeral);
  peer.Get(root, peer.Noting("watch"));
  server->Kill();
  ASSERT_TRUE(peer.WaitForSession(SessionState::kConnecting));
  server->Start();
  ASSERT_TRUE(peer.WaitForSession(SessionState::kConnected));
  EXPECT_EQ(peer.session_id(), session);
  EXPECT_EQ(peer.Get(root + "/e").stat.ephemeral_owner, session);
  EXPECT_THAT(peer.notes(), IsEmpty());
  peer.Set(root, "x");
  EXPECT_THAT(peer.notes(), ElementsAre("watch: CHANGED " + root));
}

// A client that is made before its server connects as soon as the server is there.
TEST_F(CClientTest, TheServerMayComeLater) {
  server->Stop();
  // A server that is just starting may take a connection and forget it; the client gives it up after 2/3 of the
  // timeout.
  CClientOptions options{.hosts = server->hosts(), .session_timeout = seconds(2)};
  CClient client(environment_, options);
  std::optional<Code> code;
  client.Submit({.kind = Request::Kind::kGet, .path = "/"},
                [&](Response response) { Record([&] { code = response.code; }); });
  ASSERT_TRUE(WaitUntil([&] { return code.has_value(); }));
  EXPECT_EQ(*code, Code::kNotConnected);
  bool is_connected = false;
  client.ObserveSession(
      [&](const SessionEvent& event) { Record([&] { is_connected = event.state == SessionState::kConnected; }); });
  server->Start();
  EXPECT_TRUE(WaitUntil([&] { return is_connected; }));
}

// Expiry under load: sessions that expire while requests pour in from another thread never take the process with them,
// every request is answered once, and each time there is a new session.
TEST_F(CClientTest, ExpiryUnderLoad) {
  std::string root = MakeRoot();
  Peer witness(*this, kPatient);
  TcpRelay relay(server->port());
  options_.hosts = relay.hosts();
  Peer peer(*this, {.session_timeout = milliseconds(400)});
  std::atomic<bool> is_over = false;
  std::atomic<int> submitted = 0, answered = 0;
  std::thread load([&] {
    while (!is_over) {
      if (submitted - answered > 2000) {
        std::this_thread::yield();
        continue;
      }
      ++submitted;
      peer.client().Submit({.kind = Request::Kind::kMulti,
                            .ops = {Op::Check(root, 0), Op::Set(root + "/missing", std::string(2000, 'x'), 0)}},
                           [&](Response) { ++answered; });
    }
  });
  for (int round = 0; round < 3; ++round) {
    const std::int64_t session = peer.session_id();
    const std::string alive = Cat(root, "/", round);
    peer.Create(alive, "", CreateMode::kEphemeral);
    witness.Exists(alive, witness.Noting("alive"));
    relay.Cut();
    ASSERT_TRUE(witness.WaitForNotes(static_cast<std::size_t>(round) + 1));
    relay.Restore();
    ASSERT_TRUE(WaitUntil([&] { return peer.session_id() != session; }));
    ASSERT_TRUE(peer.WaitForSession(SessionState::kConnected));
  }
  is_over = true;
  load.join();
  peer.client().Close(seconds(10));
  ASSERT_TRUE(peer.WaitForSession(SessionState::kClosed));
  EXPECT_EQ(peer.Get(root).code, Code::kClosed);  // behind all others
  EXPECT_EQ(submitted, answered);
}

// Lost answers: what the server did is done, and the client says that it does not know.
TEST_F(CClientTest, ALostAnswerIsAnUnknownOutcome) {
  std::string root = MakeRoot();
  TcpRelay relay(server->port());
  options_.hosts = relay.hosts();
  Peer peer(*this, {.session_timeout = seconds(3)});
  relay.LoseAnswers();
  auto set = peer.Send({.kind = Request::Kind::kSet, .path = root, .data = "x", .version = 0});
  EXPECT_EQ(peer.Await(set).code, Code::kConnectionLoss);
  relay.Restore();
  ASSERT_TRUE(peer.WaitForSession(SessionState::kConnected));
  EXPECT_EQ(peer.Get(root).stat.version, 1);
  EXPECT_EQ(peer.Set(root, "x", 0).code, Code::kBadVersion);
}

// On reconnect the C client sends all its watches in one packet. If that is over the server's maximum the server drops
// the connection, each time anew, and nothing gets through in this session any more.
TEST_F(CClientTest, WatchesOverAMebibyteEndEveryConnection) {
  constexpr std::size_t kPathBytes = 240;
  constexpr std::size_t kFits = 900'000 / kPathBytes;
  constexpr std::size_t kTooMuch = 1'100'000 / kPathBytes;
  std::string root = MakeRoot();
  TcpRelay relay(server->port());
  options_.hosts = relay.hosts();
  Peer peer(*this, {.session_timeout = seconds(3)});
  auto watch_from_to = [&](std::size_t from, std::size_t to) {
    std::vector<Peer::Pending> pending;
    for (std::size_t i = from; i < to; ++i) {
      std::string path = Cat(root, "/", i, "-");
      path.resize(kPathBytes, 'x');
      pending.push_back(peer.Send({.kind = Request::Kind::kExists, .path = path, .watcher = peer.Noting("watch")}));
    }
    for (const Peer::Pending& one : pending) ASSERT_EQ(peer.Await(one).code, Code::kNoNode);
  };
  auto reconnect = [&] {
    relay.Cut();
    ASSERT_TRUE(peer.WaitForSession(SessionState::kConnecting));
    relay.Restore();
  };
  watch_from_to(0, kFits);
  reconnect();
  ASSERT_TRUE(peer.WaitForSession(SessionState::kConnected));
  EXPECT_EQ(peer.Get(root).code, Code::kOk);

  watch_from_to(kFits, kTooMuch);
  reconnect();
  for (int round = 0; round < 2; ++round) {
    ASSERT_TRUE(WaitUntil([&] { return peer.client().session().state == SessionState::kConnected; }));
    EXPECT_THAT(peer.Get(root).code, AnyOf(Code::kConnectionLoss, Code::kNotConnected)) << round;
  }
}

// ---- closing ----

// Close returns when its time is up though the server hangs, and every request has ended by then.
TEST_F(CClientTest, CloseDoesNotWaitForAHangingServer) {
  std::string root = MakeRoot();
  Peer peer(*this, kPatient);
  server->Pause();
  auto get = peer.Send({.kind = Request::Kind::kGet, .path = root});
  Duration took = TimeOf([&] { peer.client().Close(milliseconds(100)); });
  EXPECT_LT(took, seconds(1));
  EXPECT_EQ(peer.Await(get).code, Code::kClosed);
  server->Resume();
}

// Destroying a client that never had a connection, or whose server is gone, does not hang.
TEST_F(CClientTest, ClientsWithoutServerCanBeDestroyed) {
  Duration took = TimeOf([&] { CClient client(environment_, {.hosts = "127.0.0.1:1"}); });
  EXPECT_LT(took, seconds(5));
  Peer peer(*this, kPatient);
  server->Kill();
  ASSERT_TRUE(peer.WaitForSession(SessionState::kConnecting));
}

// Requests made by a completion, while the client is being closed too, are taken or refused, never lost.
TEST_F(CClientTest, CompletionsMaySubmit) {
  std::string root = MakeRoot();
  Peer peer(*this, kPatient);
  int answered = 0;
  bool is_over = false;
  std::function<void()> again = [&] {
    peer.client().Submit({.kind = Request::Kind::kExists, .path = root}, [&](Response response) {
      Record([&] { response.code == Code::kOk ? ++answered : is_over = true; });
      if (response.code == Code::kOk) again();
    });
  };
  again();
  ASSERT_TRUE(WaitUntil([&] { return answered > 50; }));
  peer.client().Close(seconds(10));
  EXPECT_TRUE(WaitUntil([&] { return is_over; }));
}

// ---- chroot ----

// Below a chroot all paths are relative to it: those given, and those that come back from creates, multis, watches.
TEST_F(CClientTest, ChrootsAreInvisible) {
  std::string root = MakeRoot();
  Peer outside(*this, kPatient);
  options_.hosts = server->hosts() + root;
  Peer peer(*this, kPatient);
  EXPECT_EQ(peer.Create("/a", "data").path, "/a");
  EXPECT_EQ(peer.Create("/a/b-", "", CreateMode::kPersistentSequential).path, "/a/b-0000000000");
  Response multi = peer.Multi({Op::Create("/a/b-", "", CreateMode::kPersistentSequential), Op::Create("/m", ""),
                               Op::Set("/a", "new", 0), Op::Check("/", 0)});
  ASSERT_EQ(multi.code, Code::kOk);
  EXPECT_EQ(multi.results[0].path, "/a/b-0000000001");
  EXPECT_EQ(multi.results[1].path, "/m");
  EXPECT_THAT(peer.Children("/").children, ElementsAre("a", "m"));
  EXPECT_EQ(peer.Sync("/a").code, Code::kOk);
  peer.Get("/a", peer.Noting("get"));
  peer.Children("/", peer.Noting("children"));
  EXPECT_EQ(peer.client().watched_path_bytes(), root.size() + 2 + root.size() + 1);
  outside.Set(root + "/a", "x");
  outside.Delete(root + "/m");
  peer.Sync("/");
  EXPECT_THAT(peer.notes(), ElementsAre("get: CHANGED /a", "children: CHILDREN /"));
  EXPECT_EQ(outside.Get(root + "/a").data, "x");
}

// A multi with a bad path below a chroot is refused before it reaches the C client, which would crash on it.
TEST_F(CClientTest, BadPathsBelowAChroot) {
  options_.hosts = server->hosts() + MakeRoot();
  Peer peer(*this, kPatient);
  Response multi = peer.Multi({Op::Check("/", 0), Op::Create("bad", ""), Op::Delete("/a/")});
  EXPECT_EQ(multi.code, Code::kBadArguments);
  EXPECT_THAT(Codes(multi), ElementsAre("ROLLED_BACK", "BAD_ARGUMENTS", "RUNTIME_INCONSISTENCY"));
  EXPECT_EQ(peer.Exists("/").code, Code::kOk);
}

// The size of a request counts the chroot, which goes over the wire with every path.
TEST_F(CClientTest, TheChrootCountsInTheSizeOfARequest) {
  std::string root = MakeRoot();
  options_.hosts = server->hosts() + root;
  Peer peer(*this, kPatient);
  std::size_t frame = WireBytes({.kind = Request::Kind::kCreate, .path = "/a"});
  std::string fits(peer.client().request_bytes_max() - frame - root.size(), 'x');
  EXPECT_EQ(peer.Create("/a", fits + "x").code, Code::kTooLarge);
  EXPECT_EQ(peer.Create("/a", fits).code, Code::kOk);
}

// ---- log lines and configuration ----

// At the default level only trouble is logged, each client to its own sink, without time and thread of the C client.
TEST_F(CClientTest, LogLinesGoToTheClientsOwnSink) {
  std::vector<std::string> quiet, chatty;
  auto sink = [&](std::vector<std::string>& lines) {
    return [&](LogLevel level, std::string_view text) {
      Record([&] { lines.push_back(Cat(static_cast<int>(level), " ", text)); });
    };
  };
  {
    Peer first(*this, kPatient);
    options_.log_sink = sink(quiet);
    Peer second(*this, kPatient);
    options_.log_sink = sink(chatty);
    options_.hosts = "127.0.0.1:1";
    CClient third(environment_, options_);
    EXPECT_TRUE(WaitUntil([&] { return !chatty.empty(); }));
    second.Get("/");
  }
  EXPECT_THAT(quiet, IsEmpty());
  EXPECT_THAT(chatty, Contains(HasSubstr("127.0.0.1:1")));
  EXPECT_THAT(chatty, testing::Each(testing::MatchesRegex("[12] [^\n]*")));
  EXPECT_THAT(chatty, Not(Contains(HasSubstr("ZOO_"))));
}

// CClient learns from a log line that a connection is lost, before the C client acts on it, and stops to send. Should
// another release of the C client log it in another way, or later, this says so.
TEST_F(CClientTest, LossesAreLoggedBeforeTheyAreTold) {
  std::vector<std::string> order;
  options_.log_level = LogLevel::kError;
  options_.log_sink = [&](LogLevel, std::string_view text) {
    if (text.find("zk retcode=") != text.npos) Record([&] { order.push_back("logged"); });
  };
  Peer peer(*this, kPatient);
  peer.client().ObserveSession([&](const SessionEvent& event) {
    if (event.state == SessionState::kConnecting) Record([&] { order.push_back("told"); });
  });
  peer.Get("/");
  server->Kill();
  ASSERT_TRUE(peer.WaitForSession(SessionState::kConnecting));
  ASSERT_TRUE(WaitUntil([&] { return std::find(order.begin(), order.end(), "told") != order.end(); }));
  EXPECT_EQ(order.front(), "logged");
}

// Nothing of what a request carries is logged, not even at the level that logs most.
TEST_F(CClientTest, BodiesAreNotLogged) {
  std::vector<std::string> lines;
  options_.log_level = LogLevel::kDebug;
  options_.log_sink = [&](LogLevel, std::string_view text) { Record([&] { lines.emplace_back(text); }); };
  {
    std::string root = MakeRoot();
    Peer peer(*this, kPatient);
    peer.Create(root + "/a", "a secret body");
    peer.Multi({Op::Set(root + "/a", "a secret body", 0)});
    peer.Get(root + "/a");
  }
  EXPECT_THAT(lines, Not(IsEmpty()));
  EXPECT_THAT(lines, Not(Contains(HasSubstr("secret"))));
}

// A wrong list of servers is explained; a right one is taken.
TEST(CheckHostsTest, SaysWhatIsWrong) {
  for (const char* good : {"127.0.0.1:2181", "a:1,b:2,c:65535", "a:2181/", "a:2181,b:2181/post/keeper", "::1:2181"}) {
    EXPECT_TRUE(CheckHosts(good).ok()) << good;
  }
  auto problem = [](std::string_view hosts) { return std::string(CheckHosts(hosts).message()); };
  EXPECT_EQ(problem(""), "\"\" is not of the form host:port");
  EXPECT_EQ(problem("zookeeper"), "\"zookeeper\" is not of the form host:port");
  EXPECT_EQ(problem("a:2181,"), "\"\" is not of the form host:port");
  EXPECT_EQ(problem(":2181"), "\":2181\" is not of the form host:port");
  EXPECT_EQ(problem("a:0"), "\"a:0\" is not of the form host:port");
  EXPECT_EQ(problem("a:65536"), "\"a:65536\" is not of the form host:port");
  EXPECT_EQ(problem("a:02181"), "\"a:02181\" is not of the form host:port");
  EXPECT_EQ(problem("[::1]:2181"), "\"[::1]:2181\" is not of the form host:port");
  EXPECT_EQ(problem("a:21x"), "\"a:21x\" is not of the form host:port");
  EXPECT_EQ(problem("a:2181/post/"), "\"/post/\" is not a path in ZooKeeper");
  EXPECT_EQ(problem("a:2181//x"), "\"//x\" is not a path in ZooKeeper");
}

}  // namespace
}  // namespace postkeeper::zk
