#include "service/inspect.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <future>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/time/time.h"
#include "service/config.h"
#include "service/inspect_record.h"
#include "zkstore/c_client.h"
#include "zkstore/real_environment.h"
#include "zkstore/signal.h"
#include "zkstore/text.h"

namespace postkeeper {
namespace {

constexpr Duration kConnectTimeout = std::chrono::seconds(5);
constexpr Duration kConnectPoll = std::chrono::milliseconds(20);
constexpr std::size_t kChildrenShownMax = 1000;

enum ExitCode { kDone = 0, kFailed = 1, kUsage = 2, kNotFound = 4, kUnreachable = 5 };

constexpr char kHelp[] =
    "postkeeperd inspect: what a znode of the store holds, in words. Reads only.\n\n"
    "  postkeeperd inspect [FLAGS] [PATH]\n\n"
    "PATH is a znode's path; without one, the root of the store. Where to look is told as to postkeeperd itself, by\n"
    "flags, environment and file: --zookeeper and --root, or --data-dir for the embedded ZooKeeper of a server that\n"
    "runs. Besides:\n"
    "  --bodies           show the bodies of messages\n"
    "  --output FORMAT    text (default) or json\n"
    "  --help, -h         print this and exit\n\n"
    "  postkeeperd inspect /postkeeper/names/default/queues/orders\n"
    "  postkeeperd inspect --zookeeper zk1:2181 --output json /postkeeper/format\n";

struct Asked {
  std::string path;  // empty: the root
  bool shows_bodies = false;
  bool is_json = false;
  bool wants_help = false;
  std::vector<std::string> for_config;
};

int Complain(int code, std::string_view text) {
  std::fprintf(stderr, "postkeeperd inspect: %s\n", std::string(text).c_str());
  return code;
}

absl::Status SetOutput(std::string_view format, Asked& asked) {
  if (format != "text" && format != "json") {
    return absl::InvalidArgumentError(Cat("--output: ", Quoted(format), " is not text or json"));
  }
  asked.is_json = format == "json";
  return absl::OkStatus();
}

absl::StatusOr<Asked> ReadArguments(const std::vector<std::string>& arguments) {
  constexpr std::string_view kOutput = "--output";
  Asked asked;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    const bool has_next = i + 1 < arguments.size();
    if (argument == "--help" || argument == "-h") {
      asked.wants_help = true;
    } else if (argument == "--bodies") {
      asked.shows_bodies = true;
    } else if (argument == kOutput) {
      if (!has_next) return absl::InvalidArgumentError("--output needs a value: text or json");
      if (absl::Status status = SetOutput(arguments[++i], asked); !status.ok()) return status;
    } else if (argument.starts_with("--output=")) {
      if (absl::Status status = SetOutput(std::string_view(argument).substr(kOutput.size() + 1), asked); !status.ok()) {
        return status;
      }
    } else if (argument.starts_with("-")) {
      // For the server's own reader of flags, with its value.
      asked.for_config.push_back(argument);
      const bool takes_value = argument.find('=') == std::string::npos;
      if (takes_value && has_next) asked.for_config.push_back(arguments[++i]);
    } else if (asked.path.empty() && argument.starts_with("/")) {
      asked.path = argument;
    } else {
      return absl::InvalidArgumentError(
          Cat("unexpected argument ", Quoted(argument), ": PATH is one, and begins with /"));
    }
  }
  while (asked.path.size() > 1 && asked.path.ends_with('/')) asked.path.pop_back();
  return asked;
}

// The embedded ZooKeeper takes any free port; its own configuration says which.
absl::StatusOr<std::string> EmbeddedHosts(const Config& config) {
  constexpr std::string_view kKey = "clientPort=";
  const std::string file = Cat(config.data_dir, "/zookeeper/zoo.cfg");
  std::ifstream lines(file);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(kKey)) return Cat("127.0.0.1:", line.substr(kKey.size()));
  }
  return absl::NotFoundError(Cat("no postkeeperd with an embedded ZooKeeper has run in ", config.data_dir,
                                 ". Say where to look: --data-dir DIR or --zookeeper HOST:PORT"));
}

bool Connect(const zk::Client& client) {
  const auto deadline = std::chrono::steady_clock::now() + kConnectTimeout;
  while (client.session().state != zk::SessionState::kConnected) {
    if (std::chrono::steady_clock::now() >= deadline) return false;
    usleep(static_cast<useconds_t>(std::chrono::ceil<std::chrono::microseconds>(kConnectPoll).count()));
  }
  return true;
}

zk::Response Ask(zk::Client& client, zk::Request::Kind kind, const std::string& path) {
  std::promise<zk::Response> promise;
  zk::Request request;
  request.kind = kind;
  request.path = path;
  client.Submit(std::move(request), [&promise](zk::Response response) { promise.set_value(std::move(response)); });
  return promise.get_future().get();
}

std::string Time(std::int64_t unix_ms) {
  return absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::FromUnixMillis(unix_ms), absl::UTCTimeZone());
}

InspectTree Describe(const Layout& layout, const std::string& path, const zk::Response& node,
                     const std::vector<std::string>& children, bool shows_bodies) {
  InspectTree tree;
  tree.Add("path", path);
  tree.Add("version", std::int64_t{node.stat.version});
  tree.Add("create_time", Time(node.stat.ctime_ms));
  tree.Add("change_time", Time(node.stat.mtime_ms));
  tree.Add("data_bytes", static_cast<std::int64_t>(node.data.size()));
  if (node.stat.ephemeral_owner != 0) tree.Add("session", Cat(absl::Hex(node.stat.ephemeral_owner)));
  tree.Add("content", DescribeZnode(layout, path, node.data, shows_bodies));
  tree.Add("child_count", static_cast<std::int64_t>(children.size()));
  const std::size_t shown = std::min(children.size(), kChildrenShownMax);
  if (shown > 0) tree.Add("children", InspectTree::Items(children.begin(), children.begin() + shown));
  return tree;
}

int Inspect(const Asked& asked, const Config& config) {
  std::string hosts = config.zookeeper;
  if (config.zookeeper_is_embedded()) {
    absl::StatusOr<std::string> embedded = EmbeddedHosts(config);
    if (!embedded.ok()) return Complain(kFailed, StdView(embedded.status().message()));
    hosts = *std::move(embedded);
  }
  if (absl::Status status = zk::CheckHosts(hosts); !status.ok()) {
    return Complain(kUsage, StdView(status.message()));
  }
  RealEnvironment environment(1);
  zk::CClient client(environment, {.hosts = hosts, .log_sink = {}});
  if (!Connect(client)) {
    return Complain(kUnreachable, Cat("ZooKeeper at ", hosts, " does not answer. Does postkeeperd run?"));
  }
  const Layout layout(config.root);
  const std::string path = asked.path.empty() ? layout.root() : asked.path;
  const zk::Response node = Ask(client, zk::Request::Kind::kGet, path);
  if (node.code == zk::Code::kNoNode) {
    return Complain(kNotFound,
                    Cat("there is no znode ", path, ". What there is: postkeeperd inspect ", ParentPath(path)));
  }
  const zk::Response children = Ask(client, zk::Request::Kind::kChildren, path);
  for (const zk::Code code : {node.code, children.code}) {
    if (code != zk::Code::kOk) return Complain(kFailed, Cat("cannot read ", path, ": ", zk::CodeName(code)));
  }
  const InspectTree tree = Describe(layout, path, node, children.children, asked.shows_bodies);
  std::fputs((asked.is_json ? tree.ToJson() + "\n" : tree.ToText()).c_str(), stdout);
  client.Close(std::chrono::seconds(1));
  return kDone;
}

}  // namespace

int RunInspect(const std::vector<std::string>& arguments) {
  const absl::StatusOr<Asked> asked = ReadArguments(arguments);
  if (!asked.ok()) return Complain(kUsage, StdView(asked.status().message()));
  if (asked->wants_help) {
    std::fputs(kHelp, stdout);
    return kDone;
  }
  std::vector<std::string> variables;
  for (char** variable = environ; *variable != nullptr; ++variable) variables.emplace_back(*variable);
  const ConfigOutcome outcome = ParseConfig(asked->for_config, variables, ThisMachine());
  if (const auto* print = std::get_if<PrintAndExit>(&outcome)) {
    std::fputs(print->text.c_str(), print->code == 0 ? stdout : stderr);
    return print->code;
  }
  return Inspect(*asked, std::get<Config>(outcome));
}

}  // namespace postkeeper
