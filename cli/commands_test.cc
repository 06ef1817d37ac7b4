// The commands end to end against a server in memory: all but consume and subscribe.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>

#include "cli/build_values.h"
#include "cli/fake_server.h"
#include "cli/run_cli.h"
#include "postkeeper/v1/message.pb.h"

namespace postkeeper::cli {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::StartsWith;

class CliCommandsTest : public ::testing::Test {
 protected:
  CliRun& Run(std::vector<std::string> arguments, const std::string& input = "") {
    run_ = std::make_unique<CliRun>(server_.address(), std::move(arguments), input);
    return run_->Join();
  }

  std::vector<std::string> Bodies(const std::string& queue) {
    std::vector<std::string> bodies;
    server_.With([&](FakeState& state) {
      for (const FakeMessage& message : state.queues[queue]) bodies.push_back(message.body);
    });
    return bodies;
  }

  FakeServer server_;
  std::unique_ptr<CliRun> run_;
};

// A wrong command line exits with 2, before anything is sent, and says what is wrong and where to read on.
TEST_F(CliCommandsTest, SaysWhatIsWrongWithTheCommandLine) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{}, "postkeeper: A subcommand is required. See: postkeeper --help\n"},
      {{"frobnicate"}, "postkeeper: there is no command 'frobnicate'. See: postkeeper --help\n"},
      {{"queue", "frobnicate"}, "postkeeper: there is no command 'frobnicate'. See: postkeeper queue --help\n"},
      {{"dequeue"}, "postkeeper: SOURCE is required. See: postkeeper dequeue --help\n"},
      {{"dequeue", "q", "--max", "0"},
       "postkeeper: --max: '0' is no number from 1 to 1000. See: postkeeper dequeue --help\n"},
      {{"dequeue", "q", "--wait", "61s"}, "postkeeper: --wait is above 60s. See: postkeeper dequeue --help\n"},
      {{"dequeue", "q", "--wait", "5"},
       "postkeeper: --wait: '5' is not a duration: it has no unit. Right would be 250ms, 30s, 1h30m or 2d. See: "
       "postkeeper dequeue --help\n"},
      {{"--address", "nowhere", "queue", "ls"},
       "postkeeper: --address: 'nowhere' is not host:port. Right would be 127.0.0.1:7411. See: postkeeper queue ls "
       "--help\n"},
      {{"--output", "xml", "server"}, "postkeeper: --output: xml not in {human,json}. See: postkeeper server --help\n"},
      {{"enqueue", "q", "a", "--file", "b"},
       "postkeeper: bodies on the command line go neither with --file nor with --whole. See: postkeeper enqueue "
       "--help\n"},
      {{"enqueue", "q", "a", "--attribute", "b"},
       "postkeeper: --attribute: 'b' is not name=value. See: postkeeper enqueue --help\n"},
      {{"enqueue", "q", "a", "--delay", "1s", "--deliver-at", "2030-01-31T12:00:00Z"},
       "postkeeper: --delay excludes --deliver-at. See: postkeeper enqueue --help\n"},
      {{"consume", "q", "--parallel", "2"}, "postkeeper: --parallel requires --exec. See: postkeeper consume --help\n"},
  };
  for (const auto& [arguments, expected] : cases) {
    EXPECT_EQ(Run(arguments).exit_code(), 2) << expected;
    EXPECT_EQ(run_->err(), expected);
    EXPECT_EQ(run_->out(), "");
  }
}

// A wrong address in the environment is not passed over, unless a flag overrules it.
TEST_F(CliCommandsTest, ChecksTheAddressInTheEnvironment) {
  setenv("POSTKEEPER_ADDRESS", "nowhere", 1);
  const char* const argv[] = {"postkeeper", "server"};
  const ParsedCommandLine parsed = ParseCommandLine(2, argv);
  EXPECT_EQ(parsed.exit_code, ExitCode::kUsage);
  EXPECT_THAT(parsed.text, StartsWith("postkeeper: POSTKEEPER_ADDRESS: 'nowhere' is not host:port."));
  EXPECT_EQ(Run({"server"}).exit_code(), 0);
  setenv("POSTKEEPER_ADDRESS", "10.0.0.1:1", 1);
  EXPECT_EQ(ParseCommandLine(2, argv).connection.address, "10.0.0.1:1");
  unsetenv("POSTKEEPER_ADDRESS");
}

// Each command has a help with examples, on stdout, and exits with 0.
TEST_F(CliCommandsTest, HelpsWithExamples) {
  for (const char* name : {"enqueue", "publish", "dequeue", "ack", "nack", "extend", "consume", "subscribe", "stats",
                           "health", "server", "version"}) {
    EXPECT_EQ(Run({name, "--help"}).exit_code(), 0);
    EXPECT_THAT(run_->out(), HasSubstr(std::string("Examples:\n  postkeeper ") + name)) << run_->out();
  }
  EXPECT_EQ(Run({"cluster", "ls", "--help"}).exit_code(), 0);
  EXPECT_THAT(run_->out(), HasSubstr("Examples:\n  postkeeper cluster ls"));
  for (const char* kind : {"queue", "topic"}) {
    for (const char* verb : {"create", "ls", "show", "update", "rm"}) {
      EXPECT_EQ(Run({kind, verb, "--help"}).exit_code(), 0);
      EXPECT_THAT(run_->out(), HasSubstr(std::string("Examples:\n  postkeeper ") + kind + " " + verb));
    }
  }
}

// A group of commands shows its own examples, and no example uses what is not served.
TEST_F(CliCommandsTest, ExamplesCanBeTyped) {
  EXPECT_THAT(Run({"topic", "--help"}).out(), HasSubstr("Examples:\n  postkeeper topic create"));
  EXPECT_THAT(Run({"queue", "--help"}).out(), HasSubstr("Examples:\n  postkeeper queue create"));
  for (const char* verb : {"create", "update"}) {
    const std::string help = Run({"queue", verb, "--help"}).out();
    EXPECT_THAT(help, HasSubstr("(not served yet)"));
    EXPECT_EQ(help.find("--max-attempts", help.find("Examples:")), std::string::npos) << help;
    EXPECT_EQ(help.find("--dead-letter-queue", help.find("Examples:")), std::string::npos) << help;
  }
}

// What cannot be done because there is nothing to do is told as that.
TEST_F(CliCommandsTest, NothingToDo) {
  for (const std::string kind : {"queue", "topic"}) {
    EXPECT_EQ(Run({kind, "update", "nothing"}).exit_code(), 2);
    EXPECT_EQ(run_->err(), "postkeeper: update " + kind + " nothing: no setting was given. See: postkeeper " + kind +
                               " update --help\n");
  }
  EXPECT_EQ(Run({"queue", "rm", "nothing"}).exit_code(), 4);
  EXPECT_EQ(run_->err(), "postkeeper: delete queue nothing: it is not there. With --if-exists that is no failure\n");
  EXPECT_EQ(Run({"queue", "rm", "nothing", "--if-exists"}).exit_code(), 0);
  EXPECT_EQ(run_->out(), "nothing is gone\n");
}

// Messages with a dedup id are written once: each has one of its own, a repeat is told so and gets the first ids.
TEST_F(CliCommandsTest, DedupIds) {
  EXPECT_EQ(Run({"queue", "create", "orders"}).exit_code(), 0);
  EXPECT_EQ(Run({"enqueue", "orders", "a", "b", "--dedup-id", "order-17"}).exit_code(), 0);
  const std::string ids = run_->out();
  EXPECT_EQ(Run({"enqueue", "orders", "a", "b", "--dedup-id", "order-17"}).exit_code(), 0);
  EXPECT_EQ(run_->out(), ids);
  EXPECT_EQ(Run({"enqueue", "orders", "--dedup-id", "order-17"}, "a\nb\nc\n").exit_code(), 0);
  EXPECT_EQ(run_->out(), "1 message enqueued, 2 known before\n");
  EXPECT_THAT(Bodies("orders"), ElementsAre("a", "b", "c"));
  EXPECT_EQ(Run({"enqueue", "orders", "a", "--output", "json", "--dedup-id", "order-17"}).exit_code(), 0);
  EXPECT_THAT(run_->out(), HasSubstr("\"duplicate\":true"));
  EXPECT_EQ(Run({"enqueue", "orders", "a", "--dedup-id", std::string(109, 'x')}).exit_code(), 2);
}

// A request id that was used for another input is no success: what is new in this one was not written.
TEST_F(CliCommandsTest, RequestIdOfAnotherInput) {
  EXPECT_EQ(Run({"queue", "create", "orders"}).exit_code(), 0);
  EXPECT_EQ(Run({"enqueue", "orders", "a", "--request-id", "r"}).exit_code(), 0);
  EXPECT_EQ(Run({"enqueue", "orders", "a", "--request-id", "r"}).exit_code(), 0);
  EXPECT_EQ(Run({"enqueue", "orders", "a", "b", "--request-id", "r"}).exit_code(), 1);
  EXPECT_EQ(
      run_->err(),
      "postkeeper: enqueue into orders: the request id r was used before, for another input. What was new in this "
      "one is not enqueued. Choose another --request-id\n");
  EXPECT_THAT(Bodies("orders"), ElementsAre("a"));
}

// The versions of the product, of the API and of the stored format are told apart, for people and for programs.
TEST_F(CliCommandsTest, TellsThreeVersions) {
  const std::string api = v1::Message::descriptor()->file()->package();
  const std::string text = std::string("postkeeper ") + kVersion + "\nAPI: " + api + "\nstore format: 1\n";
  EXPECT_THAT(kVersion, MatchesRegex("[0-9]+\\.[0-9]+\\.[0-9]+"));
  EXPECT_EQ(Run({"version"}).out(), text);
  EXPECT_EQ(Run({"--version"}).out(), text);
  EXPECT_EQ(run_->exit_code(), 0);
  EXPECT_EQ(Run({"version", "--output", "json"}).out(),
            std::string("{\"version\":\"") + kVersion + "\",\"api\":\"" + api + "\",\"store_format\":1}\n");
}

// Where nobody listens, a command ends soon with 5 and names the address and the next command.
TEST_F(CliCommandsTest, FailsFastWhenUnreachable) {
  server_.Stop();
  for (const std::vector<std::string>& arguments : std::vector<std::vector<std::string>>{
           {"queue", "ls"}, {"enqueue", "q", "x"}, {"consume", "q"}, {"subscribe", "t"}, {"health"}}) {
    EXPECT_EQ(Run(arguments).exit_code(), 5) << arguments[0];
    EXPECT_THAT(run_->err(), HasSubstr("cannot reach postkeeperd at " + server_.address() +
                                       ". Is it running? Start it: postkeeperd\n"));
  }
}

// The settings given are sent, those not given are not, so that the server's defaults hold.
TEST_F(CliCommandsTest, CreatesAQueueWithSettings) {
  EXPECT_EQ(Run({"queue", "create", "orders", "--lease-duration", "90s", "--max-bytes", "1MiB"}).exit_code(), 0);
  EXPECT_EQ(run_->out(), "created namespaces/default/queues/orders\n");
  server_.With([](FakeState& state) {
    EXPECT_THAT(state.calls,
                ElementsAre("CreateQueue name: \"orders\" lease_duration { seconds: 90 } max_bytes: 1048576"));
  });
}

// An update names exactly the fields that were given.
TEST_F(CliCommandsTest, UpdatesOnlyWhatIsGiven) {
  EXPECT_EQ(Run({"queue", "update", "orders", "--max-attempts", "3", "--dead-letter-queue", ""}).exit_code(), 0);
  server_.With(
      [](FakeState& state) { EXPECT_THAT(state.calls, ElementsAre("UpdateQueue max_attempts dead_letter_queue")); });
}

// A list goes over all pages.
TEST_F(CliCommandsTest, ListsAllPages) {
  server_.With([](FakeState& state) { state.queues = {{"a", {}}, {"b", {}}, {"c", {}}}; });
  EXPECT_EQ(Run({"queue", "ls", "--output", "json"}).exit_code(), 0);
  const std::string out = run_->out();
  EXPECT_EQ(std::count(out.begin(), out.end(), '\n'), 3);
  EXPECT_THAT(out, AllOf(HasSubstr(R"({"name":"a",)"), HasSubstr(R"({"name":"b",)"), HasSubstr(R"({"name":"c",)")));
  EXPECT_THAT(Run({"queue", "ls"}).out(), StartsWith("QUEUE  LEASE"));
}

// What does not exist exits with 4, in the server's words, which give the command that creates it.
TEST_F(CliCommandsTest, ExitsWithFourForWhatIsNotThere) {
  EXPECT_EQ(Run({"queue", "show", "orders"}).exit_code(), 4);
  EXPECT_EQ(run_->err(),
            "postkeeper: show queue orders: queue orders does not exist. Create it: postkeeper queue create orders "
            "(QUEUE_NOT_FOUND)\n");
  EXPECT_EQ(Run({"queue", "rm", "orders"}).exit_code(), 4);
  EXPECT_EQ(Run({"queue", "rm", "orders", "--if-exists"}).exit_code(), 0);
  EXPECT_EQ(Run({"enqueue", "orders", "x"}).exit_code(), 4);
  EXPECT_EQ(Run({"consume", "orders"}).exit_code(), 4);
}

// Settings are shown with their units.
TEST_F(CliCommandsTest, ShowsAQueue) {
  server_.AddMessages("orders", {});
  EXPECT_EQ(Run({"queue", "show", "orders"}).exit_code(), 0);
  EXPECT_THAT(run_->out(), AllOf(HasSubstr("lease duration:     1m30s\n"), HasSubstr("max bytes:          256 MiB\n")));
}

// Purging says how many messages went.
TEST_F(CliCommandsTest, PurgesAQueue) {
  server_.AddMessages("orders", {"a", "b"});
  EXPECT_EQ(Run({"queue", "purge", "orders"}).out(), "purged 2 messages from orders\n");
}

// Each argument is one message, in order, even one that is a command's name or begins with a dash; the ids are printed.
TEST_F(CliCommandsTest, EnqueuesArguments) {
  server_.AddMessages("stats", {});
  EXPECT_EQ(Run({"enqueue", "stats", "version", "b\nc", "=x", "--", "-5", "--", "=="}).exit_code(), 0) << run_->err();
  EXPECT_EQ(run_->out(), "id-0\nid-1\nid-2\nid-3\nid-4\nid-5\n");
  EXPECT_THAT(Bodies("stats"), ElementsAre("version", "b\nc", "=x", "-5", "--", "=="));
}

// Attributes and content type go with every message.
TEST_F(CliCommandsTest, EnqueuesAttributes) {
  server_.AddMessages("q", {});
  EXPECT_EQ(Run({"enqueue", "q", "--attribute", "a=1", "--attribute", "b=x=y", "body", "--content-type", "text/plain"})
                .exit_code(),
            0);
  server_.With([](FakeState& state) {
    EXPECT_EQ(state.queues["q"][0].attributes, (std::map<std::string, std::string>{{"a", "1"}, {"b", "x=y"}}));
    EXPECT_EQ(state.queues["q"][0].content_type, "text/plain");
    EXPECT_EQ(state.queues["q"][0].body, "body");
  });
}

// Standard input is a message per line; nothing is dropped, not even an empty line or a last line without an end.
TEST_F(CliCommandsTest, EnqueuesStandardInput) {
  server_.AddMessages("q", {});
  EXPECT_EQ(Run({"enqueue", "q"}, "a\n\nlast").exit_code(), 0) << run_->err();
  EXPECT_THAT(Bodies("q"), ElementsAre("a", "", "last"));
  EXPECT_EQ(run_->out(), "3 messages enqueued\n");
  EXPECT_EQ(Run({"enqueue", "q"}, "").exit_code(), 1);
  EXPECT_EQ(
      run_->err(),
      "postkeeper: the input holds no message. Give bodies as arguments, a file with --file, or lines on standard "
      "input\n");
}

// --whole makes the input one message, byte for byte.
TEST_F(CliCommandsTest, EnqueuesWholeInput) {
  server_.AddMessages("q", {});
  EXPECT_EQ(Run({"enqueue", "q", "--whole"}, "a\nb\n").exit_code(), 0);
  EXPECT_THAT(Bodies("q"), ElementsAre("a\nb\n"));
}

class CliManyLines : public CliCommandsTest {
 protected:
  CliManyLines() : file_(::testing::TempDir() + "cli_lines_" + std::to_string(getpid())) {
    std::ofstream stream(file_);
    for (int i = 0; i < 10'000; ++i) {
      lines_.push_back("line " + std::to_string(i));
      stream << lines_.back() << '\n';
    }
    server_.AddMessages("q", {});
  }
  ~CliManyLines() override { std::remove(file_.c_str()); }

  const std::string file_;
  std::vector<std::string> lines_;
};

// A file larger than a frame goes over a stream, whole and in order.
TEST_F(CliManyLines, GoOverAStream) {
  EXPECT_EQ(Run({"enqueue", "q", "--file", file_}).exit_code(), 0) << run_->err();
  EXPECT_EQ(run_->out(), "10000 messages enqueued\n");
  EXPECT_EQ(Bodies("q"), lines_);
}

// A stream that breaks with unanswered frames: these are sent again under the same ids, and nothing is written twice.
TEST_F(CliManyLines, AreWrittenOnceOverABrokenStream) {
  server_.With([](FakeState& state) { state.breaks_append_stream_after = 3; });
  EXPECT_EQ(Run({"enqueue", "q", "--file", file_, "--output", "json"}).exit_code(), 0) << run_->err();
  EXPECT_EQ(Bodies("q"), lines_);
  const std::string out = run_->out();
  EXPECT_EQ(std::count(out.begin(), out.end(), '\n'), 10'000);
  server_.With([](FakeState& state) { EXPECT_GE(state.repeated_frames, 1); });
}

// A refusal in the middle says how far it got; what it says is written is what is written.
TEST_F(CliManyLines, SayHowFarTheyGot) {
  server_.With([](FakeState& state) { state.refuses_append_after = 4; });
  EXPECT_EQ(Run({"enqueue", "q", "--file", file_}).exit_code(), 1);
  EXPECT_THAT(run_->err(), AllOf(StartsWith("postkeeper: enqueue into q: queue q is full (QUEUE_FULL)"),
                                 HasSubstr("Of the input the first 4000 messages are enqueued, no more\n")));
  EXPECT_EQ(Bodies("q").size(), 4000u);
}

// The same --request-id with the same input writes nothing more, frame by frame.
TEST_F(CliManyLines, AreRepeatedSafelyByRequestId) {
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(Run({"enqueue", "q", "--file", file_, "--request-id", "import-7"}).exit_code(), 0) << run_->err();
  }
  EXPECT_EQ(Bodies("q"), lines_);
  server_.With([](FakeState& state) { EXPECT_TRUE(state.request_ids.contains("import-7.9")); });
}

// A file that is not there is named; nothing was sent.
TEST_F(CliCommandsTest, NamesAFileThatIsNotThere) {
  server_.AddMessages("q", {});
  EXPECT_EQ(Run({"enqueue", "q", "--file", "/nowhere/x"}).exit_code(), 1);
  EXPECT_EQ(run_->err(),
            "postkeeper: cannot read /nowhere/x: No such file or directory. 0 messages before it are enqueued\n");
}

// Publish takes the same inputs.
TEST_F(CliCommandsTest, Publishes) {
  EXPECT_EQ(Run({"publish", "news", "hello", "--output", "json"}).out(), "{\"message_id\":\"id-0\"}\n");
  server_.With([](FakeState& state) { EXPECT_EQ(state.topics["news"][0].body, "hello"); });
}

// Dequeue prints bodies as lines and leaves them leased; with --ack they are settled.
TEST_F(CliCommandsTest, Dequeues) {
  server_.AddMessages("q", {"a", "b", "c"});
  EXPECT_EQ(Run({"dequeue", "q"}).out(), "a\n");
  server_.With(
      [](FakeState& state) { EXPECT_TRUE(state.queues["q"][0].is_leased && !state.queues["q"][0].is_settled); });
  EXPECT_EQ(Run({"dequeue", "q", "--max", "10", "--ack"}).out(), "b\nc\n");
  server_.With(
      [](FakeState& state) { EXPECT_TRUE(state.queues["q"][1].is_settled && state.queues["q"][2].is_settled); });
}

// An empty queue exits with 3 and prints nothing.
TEST_F(CliCommandsTest, ExitsWithThreeForAnEmptyQueue) {
  server_.AddMessages("q", {});
  EXPECT_EQ(Run({"dequeue", "q", "--wait", "0s"}).exit_code(), 3);
  EXPECT_EQ(run_->out() + run_->err(), "");
}

// JSON has all of a delivery; a body that is no text comes as base64.
TEST_F(CliCommandsTest, DequeuesAsJson) {
  server_.AddMessages("q", {"\"text\"\n", "\xFF\xFE"});
  EXPECT_EQ(Run({"dequeue", "q", "--max", "2", "--output", "json"}).out(),
            R"({"message_id":"id-0","lease_token":"token-0-1","attempt":1,"enqueue_time":"1970-01-01T00:00:00.000Z",)"
            R"("body":"\"text\"\n","lease_duration":"30s"})"
            "\n"
            R"({"message_id":"id-1","lease_token":"token-1-1","attempt":1,"enqueue_time":"1970-01-01T00:00:00.000Z",)"
            R"("body_base64":"//4=","lease_duration":"30s"})"
            "\n");
}

// A lease token from dequeue settles from a later command; a second ack is told so and is no failure; a wrong token is.
TEST_F(CliCommandsTest, AcksByToken) {
  server_.AddMessages("q", {"a"});
  Run({"dequeue", "q"});
  EXPECT_EQ(Run({"ack", "q", "token-0-1"}).exit_code(), 0);
  EXPECT_EQ(run_->out(), "1 acked\n");
  EXPECT_EQ(Run({"ack", "q", "token-0-1"}).exit_code(), 0);
  EXPECT_EQ(run_->err(), "postkeeper: token-0-1 not acked: it was settled before\n");
  EXPECT_EQ(Run({"ack", "q", "-", "--output", "json"}, "rubbish\n").exit_code(), 1);
  EXPECT_EQ(run_->out(), "{\"lease_token\":\"rubbish\",\"result\":\"malformed_token\"}\n");
}

// A nack keeps its reason for the next attempt; a release does not count as one.
TEST_F(CliCommandsTest, NacksByToken) {
  server_.AddMessages("q", {"a"});
  Run({"dequeue", "q"});
  EXPECT_EQ(Run({"nack", "q", "token-0-1", "--reason", "no stock"}).exit_code(), 0);
  EXPECT_THAT(Run({"dequeue", "q", "--output", "json"}).out(),
              AllOf(HasSubstr(R"("attempt":2)"), HasSubstr(R"("last_reason":"no stock")")));
  EXPECT_EQ(Run({"nack", "q", "token-0-2", "--release"}).exit_code(), 0);
  server_.With([](FakeState& state) { EXPECT_EQ(state.queues["q"][0].attempt, 1); });
}

// Extend sends its tokens, and says which lease is gone.
TEST_F(CliCommandsTest, ExtendsByToken) {
  server_.AddMessages("q", {"a"});
  Run({"dequeue", "q"});
  EXPECT_EQ(Run({"extend", "q", "token-0-1", "--lease", "5m"}).exit_code(), 0);
  EXPECT_EQ(Run({"extend", "q", "token-0-9"}).exit_code(), 1);
  EXPECT_EQ(run_->err(),
            "postkeeper: token-0-9 not extended: its lease lapsed and another consumer was given the message\n");
  server_.With([](FakeState& state) { EXPECT_EQ(state.extended_tokens, 1); });
}

// Statistics, for people and for programs.
TEST_F(CliCommandsTest, ShowsStats) {
  server_.AddMessages("q", {"a", "b"});
  EXPECT_THAT(Run({"stats", "q"}).out(), AllOf(HasSubstr("ready:      2\n"), HasSubstr("oldest:     1m1s\n")));
  EXPECT_THAT(Run({"stats", "q", "--output", "json"}).out(),
              AllOf(StartsWith(R"({"source":"q","ready":2,)"), HasSubstr(R"("oldest_age_seconds":61,)")));
}

// Health asks the standard health service, and tells an unknown service from an unhealthy one.
TEST_F(CliCommandsTest, AsksForHealth) {
  EXPECT_EQ(Run({"health"}).exit_code(), 0);
  EXPECT_EQ(run_->out(), "SERVING\n");
  EXPECT_EQ(Run({"health", "--service", "postkeeper.v1.MessageService"}).exit_code(), 0);
  EXPECT_EQ(Run({"health", "--service", "nobody"}).exit_code(), 4);
  EXPECT_THAT(run_->err(), HasSubstr("has no service 'nobody'"));
}

// The server says what it is and what it does not serve.
TEST_F(CliCommandsTest, ShowsTheServer) {
  EXPECT_THAT(Run({"server"}).out(),
              AllOf(HasSubstr("version:              9.8.7\n"), HasSubstr("postkeeper.v1.Message.priority\n")));
  EXPECT_EQ(Run({"server", "--output", "json"}).out(),
            R"({"version":"9.8.7","replica":"replica-1","store_format":0,"limits":{"message_bytes":524288},)"
            R"("unserved":["postkeeper.v1.Message.priority"]})"
            "\n");
}

// All replicas are listed, however many pages they come in, for people and for programs.
TEST_F(CliCommandsTest, ListsTheReplicas) {
  EXPECT_EQ(Run({"cluster", "ls"}).exit_code(), 0) << run_->err();
  EXPECT_EQ(run_->out(),
            "REPLICA  ADDRESS        VERSION  STARTED                   OWNS\n"
            "rA       10.0.0.1:7411  9.8.7    2030-03-17T17:46:40.000Z  12\n"
            "rB       10.0.0.2:7411  9.8.7    2030-03-17T17:46:40.000Z  0\n"
            "rC  10.0.0.3:7411  9.8.7  2030-03-17T17:46:40.000Z  7\n");
  EXPECT_EQ(Run({"cluster", "ls", "--output", "json"}).exit_code(), 0);
  EXPECT_EQ(run_->out(),
            R"({"name":"rA","address":"10.0.0.1:7411","version":"9.8.7","start_time":"2030-03-17T17:46:40.000Z",)"
            R"("sources_owned":12})"
            "\n"
            R"({"name":"rB","address":"10.0.0.2:7411","version":"9.8.7","start_time":"2030-03-17T17:46:40.000Z",)"
            R"("sources_owned":0})"
            "\n"
            R"({"name":"rC","address":"10.0.0.3:7411","version":"9.8.7","start_time":"2030-03-17T17:46:40.000Z",)"
            R"("sources_owned":7})"
            "\n");
}

// What a stranger registered is shown without harm to the terminal.
TEST_F(CliCommandsTest, ListsStrangeReplicas) {
  server_.With([](FakeState& state) { state.replicas = {{"rX", "\x1b[31mred:1", 1}}; });
  EXPECT_THAT(Run({"cluster", "ls"}).out(), HasSubstr("\\x1b[31mred:1"));
}

}  // namespace
}  // namespace postkeeper::cli
