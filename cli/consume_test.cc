// consume and subscribe, end to end against a server in memory.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdio>
#include <fstream>

#include "cli/fake_server.h"
#include "cli/run_cli.h"

namespace postkeeper::cli {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;

class CliConsumeTest : public ::testing::Test {
 protected:
  CliConsumeTest() : gate_(::testing::TempDir() + "cli_gate_" + std::to_string(getpid())) { IgnoreBrokenPipes(); }
  ~CliConsumeTest() override { std::remove(gate_.c_str()); }

  CliRun& Start(std::vector<std::string> arguments) {
    run_ = std::make_unique<CliRun>(server_.address(), std::move(arguments));
    return *run_;
  }

  // A command that runs until OpenGate.
  std::string UntilGateOpens() const { return "while [ ! -e " + gate_ + " ]; do sleep 0.01; done"; }
  void OpenGate() const { std::ofstream(gate_) << "open"; }

  bool WaitUntilSettled(std::size_t count) {
    return server_.WaitUntil([count](const FakeState& state) { return Settled(state) == count; });
  }
  static std::size_t Settled(const FakeState& state) {
    const auto& messages = state.queues.at("q");
    return std::count_if(messages.begin(), messages.end(), [](const FakeMessage& m) { return m.is_settled; });
  }

  const std::string gate_;
  FakeServer server_;
  std::unique_ptr<CliRun> run_;
};

// Without a command bodies are printed and acked; --count takes exactly so many and gives the others back untouched.
TEST_F(CliConsumeTest, PrintsAndAcksACount) {
  server_.AddMessages("q", {"a", "b", "c", "d"});
  Start({"consume", "q", "--count", "3"}).Join();
  EXPECT_EQ(run_->exit_code(), 0) << run_->err();
  EXPECT_EQ(run_->out(), "a\nb\nc\n");
  server_.With([](FakeState& state) {
    EXPECT_EQ(Settled(state), 3u);
    EXPECT_EQ(state.queues["q"][3].attempt, 0);
    EXPECT_FALSE(state.queues["q"][3].is_leased);
  });
}

// The command gets the body on stdin and all else in its environment; its exit code decides, and becomes the reason.
TEST_F(CliConsumeTest, RunsACommandForEachMessage) {
  server_.AddMessages("q", {"good", "bad"});
  server_.With([](FakeState& state) { state.queues["q"][0].attributes = {{"lang-code", "de"}}; });
  const std::string command =
      "test \"$(cat)\" = good && test \"$POSTKEEPER_ATTRIBUTE_LANG_CODE\" = de && "
      "test $POSTKEEPER_MESSAGE_ID = id-0 && test $POSTKEEPER_ATTEMPT = 1 && "
      "test $POSTKEEPER_SOURCE = q && test -n \"$POSTKEEPER_ADDRESS\" || exit 7";
  Start({"consume", "q", "--exec", command, "--count", "2"}).Join();
  EXPECT_EQ(run_->exit_code(), 0);
  EXPECT_THAT(run_->err(), AllOf(HasSubstr("message id-1, attempt 1: exit code 7; giving it back\n"),
                                 EndsWith("postkeeper: acked 1, nacked 1\n")));
  server_.With([](FakeState& state) {
    EXPECT_TRUE(state.queues["q"][0].is_settled);
    EXPECT_EQ(state.queues["q"][1].last_reason, "exit code 7");
  });
}

// --until-empty works everything off, several at a time, retries included.
TEST_F(CliConsumeTest, WorksUntilEmpty) {
  std::vector<std::string> bodies;
  for (int i = 0; i < 40; ++i) bodies.push_back(std::to_string(i));
  server_.AddMessages("q", bodies);
  Start({"consume", "q", "--exec", "test $POSTKEEPER_ATTEMPT = 2", "--parallel", "4", "--until-empty", "--output",
         "json"})
      .Join();
  EXPECT_EQ(run_->exit_code(), 0);
  EXPECT_THAT(run_->err(), EndsWith("acked 40, nacked 40\n"));
  const std::string out = run_->out();
  EXPECT_EQ(std::count(out.begin(), out.end(), '\n'), 80);
  EXPECT_THAT(out, HasSubstr(R"({"message_id":"id-0","result":"acked"})"));
}

// --idle-exit ends a consumer for which nothing comes.
TEST_F(CliConsumeTest, ExitsWhenIdle) {
  server_.AddMessages("q", {"a"});
  Start({"consume", "q", "--idle-exit", "100ms"}).Join();
  EXPECT_EQ(run_->exit_code(), 0);
  EXPECT_EQ(run_->out(), "a\n");
}

// The output is published before the ack, with the source message's id, and a second attempt publishes it no second
// time.
TEST_F(CliConsumeTest, PublishesOutputOnce) {
  server_.AddMessages("q", {"one two three"});
  const std::vector<std::string> arguments = {"consume",          "q",      "--exec",  "wc -w",
                                              "--publish-output", "counts", "--count", "1"};
  Start(arguments).Join();
  EXPECT_EQ(run_->exit_code(), 0) << run_->err();
  server_.With([](FakeState& state) {
    ASSERT_EQ(state.topics["counts"].size(), 1u);
    EXPECT_EQ(std::stoi(state.topics["counts"][0].body), 3);
    EXPECT_EQ(state.topics["counts"][0].attributes["source-message-id"], "id-0");
    // As if the ack had been lost, and the lease had lapsed.
    state.queues["q"][0].is_settled = state.queues["q"][0].is_leased = false;
  });
  Start(arguments).Join();
  server_.With([](FakeState& state) {
    EXPECT_EQ(state.topics["counts"].size(), 1u);
    EXPECT_EQ(state.repeated_frames, 1);
    EXPECT_TRUE(state.queues["q"][0].is_settled);
  });
}

// A server that is away when a command has ended is waited for: its output is published, and the message is acked, at
// the first attempt.
TEST_F(CliConsumeTest, PublishesWhenTheServerIsBack) {
  server_.AddMessages("q", {"a"});
  Start({"consume", "q", "--exec", UntilGateOpens() + "; echo out", "--publish-output", "outputs", "--count", "1"});
  ASSERT_TRUE(server_.WaitUntil([](const FakeState& state) { return state.queues.at("q")[0].is_leased; }));
  server_.Stop();
  OpenGate();
  server_.Restart();
  EXPECT_EQ(run_->Join().exit_code(), 0) << run_->err();
  server_.With([](FakeState& state) {
    ASSERT_EQ(state.topics["outputs"].size(), 1u);
    EXPECT_EQ(state.topics["outputs"][0].body, "out\n");
    EXPECT_TRUE(state.queues["q"][0].is_settled);
    EXPECT_EQ(state.queues["q"][0].attempt, 1);
  });
}

// While a command runs for longer than the lease, the lease is extended, again and again.
TEST_F(CliConsumeTest, KeepsTheLeaseWhileACommandRuns) {
  server_.AddMessages("q", {"a"});
  server_.With([](FakeState& state) { state.lease_millis = 150; });
  Start({"consume", "q", "--exec", UntilGateOpens(), "--count", "1"});
  EXPECT_TRUE(server_.WaitUntil([](const FakeState& state) { return state.extended_tokens >= 4; }));
  OpenGate();
  EXPECT_EQ(run_->Join().exit_code(), 0);
  server_.With([](FakeState& state) { EXPECT_EQ(Settled(state), 1u); });
}

// A message that was given to somebody else meanwhile is neither published nor acked by us.
TEST_F(CliConsumeTest, LeavesALostMessageAlone) {
  server_.AddMessages("q", {"a"});
  server_.With([](FakeState& state) { state.lease_millis = 150; });
  Start({"consume", "q", "--exec", UntilGateOpens(), "--publish-output", "out", "--count", "1"});
  ASSERT_TRUE(server_.WaitUntil([](const FakeState& state) { return state.extended_tokens >= 1; }));
  server_.With([](FakeState& state) { state.queues["q"][0].attempt = 2; });
  ASSERT_TRUE(server_.WaitUntil([](const FakeState& state) { return state.refused_extensions >= 1; }));
  OpenGate();
  EXPECT_EQ(run_->Join().exit_code(), 0);
  EXPECT_THAT(run_->err(), HasSubstr("message id-0 was not settled: its lease was lost while the command ran"));
  server_.With([](FakeState& state) {
    EXPECT_TRUE(state.topics["out"].empty());
    EXPECT_FALSE(state.queues["q"][0].is_settled);
  });
}

// SIGTERM: nothing new is begun, what is waiting goes back uncounted, what runs is finished and acked, exit 0.
TEST_F(CliConsumeTest, DrainsOnStop) {
  server_.AddMessages("q", {"running", "waiting", "later"});
  const std::string started = gate_ + "_started";
  ASSERT_EQ(mkfifo(started.c_str(), 0600), 0);
  Start({"consume", "q", "--exec", "echo > " + started + "; " + UntilGateOpens()});
  std::ifstream(started).get();  // Returns when the command runs.
  std::remove(started.c_str());
  ASSERT_TRUE(server_.WaitUntil([](const FakeState& state) { return state.queues.at("q")[1].is_leased; }));
  run_->RequestStop();
  ASSERT_TRUE(server_.WaitUntil([](const FakeState& state) { return state.released_tokens >= 1; }));
  server_.With([](FakeState& state) { EXPECT_EQ(Settled(state), 0u); });
  OpenGate();
  EXPECT_EQ(run_->Join().exit_code(), 0) << run_->err();
  server_.With([](FakeState& state) {
    EXPECT_TRUE(state.queues["q"][0].is_settled);
    for (int i : {1, 2}) {
      EXPECT_EQ(state.queues["q"][i].attempt, 0);
      EXPECT_FALSE(state.queues["q"][i].is_leased || state.queues["q"][i].is_settled);
    }
  });
}

// A stream that breaks before an ack is answered: the ack is sent again on the next stream, and consuming goes on.
TEST_F(CliConsumeTest, SettlesAgainAfterABrokenStream) {
  server_.AddMessages("q", {"a", "b", "c"});
  server_.With([](FakeState& state) { state.breaks_consume_after_settles = 0; });
  Start({"consume", "q", "--until-empty"}).Join();
  EXPECT_EQ(run_->exit_code(), 0) << run_->err();
  EXPECT_THAT(run_->err(), HasSubstr("the stream broke; trying again"));
  server_.With([](FakeState& state) {
    EXPECT_EQ(Settled(state), 3u);
    EXPECT_GE(state.consume_streams, 2);
  });
}

// The server goes away while a command runs and comes back: the command is not disturbed, its lease is extended on the
// new stream, its ack counts, and new messages come.
TEST_F(CliConsumeTest, OutlastsARestartOfTheServer) {
  server_.AddMessages("q", {"a"});
  Start({"consume", "q", "--exec", UntilGateOpens(), "--count", "2"});
  ASSERT_TRUE(server_.WaitUntil([](const FakeState& state) { return state.queues.at("q")[0].is_leased; }));
  server_.Restart();
  ASSERT_TRUE(server_.WaitUntil([](const FakeState& state) { return state.consume_streams == 2; }));
  EXPECT_TRUE(server_.WaitUntil([](const FakeState& state) { return state.extended_tokens >= 1; }));
  OpenGate();
  server_.AddMessages("q", {"b"});
  EXPECT_TRUE(WaitUntilSettled(2)) << run_->err();
  EXPECT_EQ(run_->Join().exit_code(), 0) << run_->err();
  server_.With([](FakeState& state) {
    EXPECT_EQ(state.queues["q"][0].attempt, 1);
    EXPECT_EQ(state.queues["q"][1].attempt, 1);
  });
}

// A server that drains: what waits is released, a new stream is opened, nothing is lost or done twice.
TEST_F(CliConsumeTest, MovesOnWhenTheServerDrains) {
  server_.AddMessages("q", {"a", "b", "c"});
  Start({"consume", "q", "--exec", UntilGateOpens(), "--count", "3"});
  ASSERT_TRUE(server_.WaitUntil([](const FakeState& state) { return state.queues.at("q")[1].is_leased; }));
  server_.With([](FakeState& state) { state.drains_consume = true; });
  ASSERT_TRUE(server_.WaitUntil([](const FakeState& state) { return state.released_tokens >= 1; }));
  OpenGate();
  EXPECT_EQ(run_->Join().exit_code(), 0) << run_->err();
  server_.With([](FakeState& state) {
    EXPECT_EQ(Settled(state), 3u);
    EXPECT_EQ(state.consume_streams, 2);
    for (const FakeMessage& message : state.queues["q"]) EXPECT_EQ(message.attempt, 1);
  });
}

// With the server gone and nothing to settle, a stop request is obeyed at once.
TEST_F(CliConsumeTest, StopsAtOnceWithNothingToSettle) {
  server_.AddMessages("q", {});
  Start({"consume", "q"});
  ASSERT_TRUE(server_.WaitUntil([](const FakeState& state) { return state.consume_streams == 1; }));
  server_.Stop();
  run_->RequestStop();
  EXPECT_EQ(run_->Join().exit_code(), 0) << run_->err();
}

// A subscriber prints what is there and what comes, each once, over a broken stream and a restart of the server.
TEST_F(CliConsumeTest, SubscribesWithoutGapOrRepeat) {
  server_.AddTopicMessages("t", {"a", "b", "c"});
  server_.With([](FakeState& state) { state.breaks_subscribe_after = 2; });
  Start({"subscribe", "t", "--from", "earliest", "--count", "5"});
  ASSERT_TRUE(server_.WaitUntil([](const FakeState& state) { return state.subscribe_streams == 2; }));
  server_.Restart();
  ASSERT_TRUE(server_.WaitUntil([](const FakeState& state) { return state.subscribe_streams >= 3; }));
  server_.AddTopicMessages("t", {"d", "e"});
  EXPECT_EQ(run_->Join().exit_code(), 0) << run_->err();
  EXPECT_EQ(run_->out(), "a\nb\nc\nd\ne\n");
}

// --until-caught-up ends at the tail; JSON carries what is needed to resume.
TEST_F(CliConsumeTest, SubscribesUntilCaughtUp) {
  server_.AddTopicMessages("t", {"a", "b"});
  Start({"subscribe", "t", "--from", "earliest", "--until-caught-up", "--output", "json"}).Join();
  EXPECT_EQ(run_->exit_code(), 0);
  EXPECT_THAT(run_->out(), HasSubstr(R"({"message_id":"id-0","position":"position-00000000000000001","topic":"t",)"));
  Start({"subscribe", "t", "--from", "position-00000000000000001", "--until-caught-up"}).Join();
  EXPECT_EQ(run_->out(), "b\n");
  Start({"subscribe", "t", "--until-caught-up"}).Join();
  EXPECT_EQ(run_->out(), "");
}

// A position whose messages are gone is an error that names the way out.
TEST_F(CliConsumeTest, TellsOfATrimmedPosition) {
  Start({"subscribe", "t", "--from", "position-00000000000000999"}).Join();
  EXPECT_EQ(run_->exit_code(), 1);
  EXPECT_EQ(run_->err(),
            "postkeeper: subscribe to t: messages after the position were trimmed (POSITION_TRIMMED). Start at the "
            "oldest message that is left: --from earliest (position position-00000000000000007)\n");
}

// A subscriber that is told to stop exits with 0.
TEST_F(CliConsumeTest, SubscribeStops) {
  Start({"subscribe", "t"});
  ASSERT_TRUE(server_.WaitUntil([](const FakeState& state) { return state.subscribe_streams == 1; }));
  run_->RequestStop();
  EXPECT_EQ(run_->Join().exit_code(), 0);
}

}  // namespace
}  // namespace postkeeper::cli
