// The simulator against the real server: the same random scripts must give the same answers, step by step.
//
// A script is a list of operations by two clients on a small tree, many of them sent without waiting for the answers.
// What each client was told, in the order in which it was told (answers and watches), is written down as text, and so
// is the whole tree at the end. POSTKEEPER_SEED replays one seed; a failure prints its own.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <random>

#include "tests/contract/world.h"
#include "zkstore/text.h"

namespace postkeeper::zk {
namespace {

constexpr int kScripts = 200;
constexpr std::size_t kOperationsPerScript = 200;
constexpr std::uint64_t kFirstSeed = 20'240'601;
constexpr int kPipelineMax = 12;

// ---- from a seed to a script ----

struct Step {
  enum class Kind { kRequest, kAwaitAll, kReplaceClient };
  Kind kind = Kind::kRequest;
  int client = 0;
  Request request;  // with paths below the root "", and without a watcher
  bool is_watching = false;
};

class ScriptWriter {
 public:
  explicit ScriptWriter(std::uint64_t seed) : random_(seed) {}

  std::vector<Step> Write() {
    std::vector<Step> script;
    // Something to meet with from the beginning.
    for (const char* path : {"/a", "/b", "/c", "/a/a", "/b/b"}) {
      script.push_back({.request = {.kind = Request::Kind::kCreate, .path = path}});
    }
    int client = 0, left = 0;
    for (std::size_t operations = script.size(); operations < kOperationsPerScript; ++operations) {
      if (left == 0) {
        // Two clients that send at the same time would be served in an order that nobody can foresee.
        script.push_back({.kind = Step::Kind::kAwaitAll});
        if (Below(10) == 0) script.push_back({.kind = Step::Kind::kReplaceClient, .client = client});
        client = static_cast<int>(Below(2));
        left = 1 + static_cast<int>(Below(kPipelineMax));
      }
      script.push_back(MakeRequest(client));
      --left;
    }
    script.push_back({.kind = Step::Kind::kAwaitAll});
    return script;
  }

 private:
  std::uint64_t Below(std::uint64_t bound) { return random_() % bound; }

  // A small tree, so that operations meet: two levels of three names, and a few odd paths.
  std::string Path() {
    static const char* const kNames[] = {"a", "b", "c"};
    if (Below(40) == 0) {
      static const char* const kOdd[] = {"/", "//", "/a/", "/a//b", "/a/./b", "/..", "/a\x02"};
      return kOdd[Below(std::size(kOdd))];
    }
    std::string path = Cat("/", kNames[Below(3)]);
    if (Below(2) != 0) path += Cat("/", kNames[Below(3)]);
    if (Below(12) == 0) path += Cat("/", kNames[Below(3)]);
    if (Below(8) == 0) path += Cat("-000000000", Below(4));
    return path;
  }

  std::string SequencePath() {
    std::string path = Path();
    return Below(3) == 0 ? path + "/" : path + "-";
  }

  std::int32_t Version() { return Below(3) != 0 ? kAnyVersion : static_cast<std::int32_t>(Below(4)); }

  CreateMode Mode() {
    std::uint64_t number = Below(10);
    if (number <= 2) return CreateMode::kEphemeral;
    if (number == 3) return CreateMode::kEphemeralSequential;
    return number <= 6 ? CreateMode::kPersistentSequential : CreateMode::kPersistent;
  }

  static bool IsSequential(CreateMode mode) {
    return mode == CreateMode::kPersistentSequential || mode == CreateMode::kEphemeralSequential;
  }

  std::string Data() { return std::string(Below(30), static_cast<char>('a' + Below(26))); }

  Op MakeOp() {
    switch (Below(4)) {
      case 0: {
        CreateMode mode = Mode();
        return Op::Create(IsSequential(mode) ? SequencePath() : Path(), Data(), mode);
      }
      case 1:
        return Op::Set(Path(), Data(), Version());
      case 2:
        return Op::Delete(Path(), Version());
      default:
        return Op::Check(Path(), Version());
    }
  }

  Step MakeRequest(int client) {
    using Kind = Request::Kind;
    static constexpr Kind kKinds[] = {Kind::kCreate, Kind::kCreate,   Kind::kCreate, Kind::kCreate, Kind::kCreate,
                                      Kind::kGet,    Kind::kGet,      Kind::kGet,    Kind::kSet,    Kind::kSet,
                                      Kind::kSet,    Kind::kExists,   Kind::kExists, Kind::kExists, Kind::kMulti,
                                      Kind::kMulti,  Kind::kChildren, Kind::kMulti,  Kind::kSync,   Kind::kDelete};
    Step step{.client = client};
    Request& request = step.request;
    request.kind = kKinds[Below(std::size(kKinds))];
    if (request.kind == Kind::kCreate) request.mode = Mode();
    request.path = request.kind == Kind::kCreate && IsSequential(request.mode) ? SequencePath() : Path();
    if (request.kind == Kind::kCreate || request.kind == Kind::kSet) request.data = Data();
    if (request.kind == Kind::kSet || request.kind == Kind::kDelete) request.version = Version();
    if (request.kind == Kind::kMulti) {
      request.path.clear();
      for (std::uint64_t i = Below(2) == 0 ? 2 : Below(7); i > 0; --i) request.ops.push_back(MakeOp());
    }
    bool can_watch = request.kind == Kind::kGet || request.kind == Kind::kExists || request.kind == Kind::kChildren;
    step.is_watching = can_watch && Below(4) != 0;
    return step;
  }

  std::mt19937_64 random_;
};

// ---- from a script to what the clients were told ----

// Of a Stat what does not depend on clocks, ids and other tests.
std::string Show(const Stat& stat) {
  return Cat("v", stat.version, " c", stat.cversion, " n", stat.num_children, " l", stat.data_length,
             stat.ephemeral_owner != 0 ? " ephemeral" : "", stat.mzxid == stat.czxid ? " m=c" : "",
             stat.pzxid == stat.czxid ? " p=c" : "", stat.pzxid == stat.mzxid ? " p=m" : "",
             stat.mzxid < stat.czxid || stat.pzxid < stat.czxid ? " BACKWARDS" : "");
}

class ScriptRunner {
 public:
  explicit ScriptRunner(World& world) : world_(world), root_(world.MakeRoot()) {
    for (int client = 0; client < 2; ++client) StartClient(client);
  }

  // One line for each thing that a client was told, then the tree.
  std::vector<std::string> Run(std::vector<Step> script) {
    for (std::size_t number = 0; number < script.size(); ++number) {
      Step& step = script[number];
      if (step.kind == Step::Kind::kRequest) {
        SendRequest(static_cast<int>(number), std::move(step));
      } else {
        AwaitAll();
        if (step.kind == Step::Kind::kReplaceClient) ReplaceClient(step.client);
      }
    }
    ShowTree("");
    return lines_;
  }

 private:
  void StartClient(int client) { peers_[client] = std::make_unique<Peer>(world_); }

  void SendRequest(int number, Step step) {
    Request& request = step.request;
    if (request.kind != Request::Kind::kMulti) request.path = Below(request.path);
    for (Op& op : request.ops) op.path = Below(op.path);
    std::vector<std::string>& told = told_[step.client];
    if (step.is_watching) {
      request.watcher = [this, &told, number](WatchEvent event) {
        world_.Record(
            [&] { told.push_back(Cat("event ", WatchTypeName(event.type), " ", Above(event.path), " for ", number)); });
      };
    }
    world_.Record([this] { ++outstanding_; });
    peers_[step.client]->client().Submit(std::move(request), [this, &told, number](Response response) {
      world_.Record([&] {
        told.push_back(Cat("answer to ", number, ": ", Show(response)));
        --outstanding_;
      });
    });
  }

  // Afterwards every client has been told everything that has happened until now.
  void AwaitAll() {
    ASSERT_TRUE(world_.WaitUntil([&] { return outstanding_ == 0; })) << "a request is never answered";
    for (auto& peer : peers_) peer->Sync(root_);
    for (int client = 0; client < 2; ++client) {
      std::vector<std::string> told;
      world_.Record([&] { told.swap(told_[client]); });
      // Of requests that the client itself refuses nobody promises when they are told so.
      std::stable_partition(told.begin(), told.end(),
                            [](const std::string& line) { return line.find(": BAD_ARGUMENTS") == line.npos; });
      SortEqualEvents(told);
      for (const std::string& line : told) lines_.push_back(Cat("client ", client, ": ", line));
    }
  }

  // Closing removes the ephemerals in an order that ZooKeeper leaves to chance: the other client's events are sorted.
  void ReplaceClient(int client) {
    peers_[client].reset();
    peers_[1 - client]->Sync(root_);
    std::vector<std::string> told;
    world_.Record([&] {
      told.swap(told_[1 - client]);
      told_[client].clear();  // its watches are lost; nobody promises in which order it says so
    });
    std::sort(told.begin(), told.end());
    for (const std::string& line : told) lines_.push_back(Cat("client ", 1 - client, " after a close: ", line));
    StartClient(client);
  }

  // Several watchers of one client for the same event have no order among themselves.
  static void SortEqualEvents(std::vector<std::string>& told) {
    auto event_of = [](const std::string& line) {
      return line.starts_with("event ") ? line.substr(0, line.rfind(" for ")) : std::string();
    };
    for (auto begin = told.begin(); begin != told.end();) {
      const std::string event = event_of(*begin);
      auto end = std::find_if(begin, told.end(), [&](const std::string& line) { return event_of(line) != event; });
      if (!event.empty()) std::sort(begin, end);
      begin = end;
    }
  }

  std::string Show(const Response& response) {
    std::string text =
        Cat(CodeName(response.code), " ", Above(response.path), " \"", response.data, "\" ", zk::Show(response.stat));
    for (const std::string& child : response.children) text += " " + child;
    for (const OpResult& result : response.results) {
      text += Cat(" [", CodeName(result.code), " ", Above(result.path), " ", zk::Show(result.stat), "]");
    }
    return text;
  }

  void ShowTree(const std::string& path) {
    Response read = peers_[0]->Get(root_ + path);
    lines_.push_back(Cat("at the end, ", path, ": ", Show(read)));
    for (const std::string& child : peers_[0]->Children(root_ + path).children) ShowTree(Cat(path, "/", child));
  }

  std::string Below(const std::string& path) const { return path == "/" ? root_ : root_ + path; }
  std::string Above(const std::string& path) const {
    return path.starts_with(root_) ? path.substr(root_.size()) : path;
  }

  World& world_;
  const std::string root_;
  // Touched under Record; outlive the clients.
  std::vector<std::string> told_[2];  // since the last AwaitAll
  int outstanding_ = 0;
  std::vector<std::string> lines_;
  std::unique_ptr<Peer> peers_[2];
};

// Empty if they are equal; else the first difference, with what led to it.
std::string FirstDifference(const std::vector<std::string>& simulator, const std::vector<std::string>& server) {
  std::size_t at = 0;
  while (at < simulator.size() && at < server.size() && simulator[at] == server[at]) ++at;
  if (at == simulator.size() && at == server.size()) return "";
  std::string text;
  for (std::size_t i = at < 8 ? 0 : at - 8; i < at; ++i) text += Cat("  both:      ", server[i], "\n");
  text += Cat("  simulator: ", at < simulator.size() ? simulator[at] : "(ends)", "\n");
  text += Cat("  server:    ", at < server.size() ? server[at] : "(ends)", "\n");
  return text;
}

// On 200 random scripts the simulator and the real server agree on every answer, version and event, and on the tree.
TEST(DifferentialTest, TheSimulatorBehavesLikeTheServer) {
  std::unique_ptr<World> server = MakeRealWorld();
  const char* given = std::getenv("POSTKEEPER_SEED");
  const std::uint64_t first = given != nullptr ? std::strtoull(given, nullptr, 10) : kFirstSeed;
  const std::uint64_t end = given != nullptr ? first + 1 : first + kScripts;
  for (std::uint64_t seed = first; seed < end; ++seed) {
    std::unique_ptr<World> simulator = MakeSimulatedWorld(seed);
    std::vector<std::string> simulated = ScriptRunner(*simulator).Run(ScriptWriter(seed).Write());
    std::vector<std::string> real = ScriptRunner(*server).Run(ScriptWriter(seed).Write());
    EXPECT_GT(real.size(), kOperationsPerScript);
    ASSERT_EQ(FirstDifference(simulated, real), "") << "replay with POSTKEEPER_SEED=" << seed;
  }
}

}  // namespace
}  // namespace postkeeper::zk
