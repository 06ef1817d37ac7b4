// The only file that knows CLI11.
#include "bench/flags.h"

#include <CLI/CLI.hpp>
#include <sstream>
#include <vector>

namespace postkeeper::bench {
namespace {

constexpr char kAbout[] =
    "Measures a running postkeeperd, each workload beside the ceilings of the same machine. ./dev bench starts a "
    "server "
    "and calls this.";
constexpr char kExamples[] =
    "Examples:\n"
    "  postkeeper_bench --quick                       three rates of the server at 127.0.0.1:7411\n"
    "  postkeeper_bench --quick --only enqueue        one of them\n"
    "  ./dev bench --rounds 5 --seconds 10            everything, with ceilings, on a server of its own\n";

PrintAndExit Wrong(const std::string& text) { return {"postkeeper_bench: " + text + "\n", 2}; }

}  // namespace

PrintAndExit ParseFlags(int argc, const char* const* argv, Flags& flags) {
  RoundsOptions& rounds = flags.rounds;
  rounds.address = "127.0.0.1:7411";
  bool is_quick = false, has_no_ceilings = false;
  double seconds = 5, warm_up = 1;
  std::string output = "human";
  std::vector<std::string> only;
  pid_t postkeeperd_pid = 0, zookeeper_pid = 0;

  CLI::App app(kAbout, "postkeeper_bench");
  app.footer(kExamples);
  app.add_option("--address", rounds.address, "postkeeperd's gRPC address")
      ->envname("POSTKEEPER_ADDRESS")
      ->capture_default_str();
  app.add_flag("--quick", is_quick,
               "One round of enqueue, enqueue+consume+ack and confirm latency, without ceilings; prints three lines");
  app.add_option("--output", output, "human or json")->check(CLI::IsMember({"human", "json"}))->capture_default_str();
  app.add_option(
         "--only", only,
         "Only these workloads, separated by commas: " +
             [] {
               std::string names;
               for (const char* name : kWorkloads) names += (names.empty() ? "" : ", ") + std::string(name);
               return names;
             }())
      ->delimiter(',')
      ->check(CLI::IsMember(std::vector<std::string>(std::begin(kWorkloads), std::end(kWorkloads))));
  app.add_option("--rounds", rounds.rounds, "How often everything is measured; the medians are shown")
      ->check(CLI::Range(1, 100))
      ->capture_default_str();
  app.add_option("--seconds", seconds, "How long each measurement takes")
      ->check(CLI::Range(0.1, 300.0))
      ->capture_default_str();
  app.add_option("--warm-up", warm_up, "Seconds of load before each measurement")
      ->check(CLI::Range(0.0, 60.0))
      ->capture_default_str();
  app.add_option("--messages-max", rounds.window.count_max,
                 "Messages after which a measurement ends early; bounds what is stored")
      ->check(CLI::Range(1, 100'000'000))
      ->capture_default_str();
  app.add_flag("--no-ceilings", has_no_ceilings, "Measure postkeeperd alone");
  app.add_option("--zookeeper", rounds.zookeeper, "The ZooKeeper that postkeeperd uses, for the ceilings");
  app.add_option("--metrics", rounds.metrics_address, "postkeeperd's metrics page, for the sizes of its batches");
  app.add_option("--postkeeperd-pid", postkeeperd_pid, "Its process, for its CPU time")->check(CLI::PositiveNumber);
  app.add_option("--zookeeper-pid", zookeeper_pid, "ZooKeeper's process, for its CPU time")->check(CLI::PositiveNumber);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    std::ostringstream text;
    const bool is_help = app.exit(error, text, text) == 0;
    return {text.str(), is_help ? 0 : 2};
  }

  rounds.window.time = std::chrono::duration<double>(seconds);
  rounds.window.warm_up = std::chrono::duration<double>(warm_up);
  rounds.workloads.insert(only.begin(), only.end());
  if (only.empty() && is_quick) rounds.workloads = {kEnqueue, kConsume, kConfirm};
  if (only.empty() && !is_quick) rounds.workloads.insert(std::begin(kWorkloads), std::end(kWorkloads));
  if (postkeeperd_pid > 0) rounds.processes["postkeeperd"] = postkeeperd_pid;
  if (zookeeper_pid > 0) rounds.processes["ZooKeeper"] = zookeeper_pid;
  if (is_quick) rounds.rounds = 1;
  if (is_quick || has_no_ceilings) {
    rounds.zookeeper.clear();
  } else if (rounds.zookeeper.empty() || rounds.metrics_address.empty()) {
    return Wrong(
        "the ceilings need --zookeeper and --metrics; ./dev bench gives both. Or leave them out: --no-ceilings");
  }
  flags.output = output == "json" ? Output::kJson : is_quick ? Output::kLines : Output::kTable;
  return {};
}

}  // namespace postkeeper::bench
