// postkeeper_bench: how fast is a running postkeeperd, and how fast could it be?
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "bench/echo_server.h"
#include "bench/flags.h"
#include "bench/results.h"
#include "bench/rounds.h"

namespace postkeeper::bench {
namespace {

int Main(int argc, char** argv) {
  if (argc == 2 && std::string_view(argv[1]) == kEchoServerFlag) return RunEchoServer();
  Flags flags;
  const PrintAndExit print = ParseFlags(argc, argv, flags);
  if (!print.text.empty()) {
    std::fputs(print.text.c_str(), print.code == 0 ? stdout : stderr);
    return print.code;
  }
  const absl::StatusOr<Results> results = RunRounds(flags.rounds);
  if (!results.ok()) {
    std::fprintf(stderr, "postkeeper_bench: %s\n", std::string(results.status().message()).c_str());
    return 1;
  }
  const std::string report = flags.output == Output::kJson    ? ReportJson(*results)
                             : flags.output == Output::kLines ? ReportLines(*results)
                                                              : ReportTable(*results);
  std::fputs(report.c_str(), stdout);
  return 0;
}

}  // namespace
}  // namespace postkeeper::bench

int main(int argc, char** argv) {
  setenv("GRPC_VERBOSITY", "NONE", 0);  // what matters comes as statuses
  std::signal(SIGPIPE, SIG_IGN);
  return postkeeper::bench::Main(argc, argv);
}
