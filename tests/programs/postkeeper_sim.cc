// Runs simulated clusters from seeds:
//
//   postkeeper_sim [--seeds N] [--step N] [--world NAME] [--bug N] [--report FILE] [--traces FOLDER] [--digests] [SEED]
//
// --world is of simulation/options.h; --bug switches on a deliberate one, by its number in zkstore/mutation.h.
//
// Without a seed it begins with one that no other run has had, and says which. A seed that fails is run again with a
// trace. Ends with 1 if a promise was broken, if some kind of fault never happened in all seeds, or if a checker had
// nothing to judge.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <random>
#include <string>

#include "service/logging.h"
#include "tests/support/simulation/simulation.h"
#include "zkstore/mutation.h"

namespace postkeeper {
namespace {

constexpr std::size_t kTraceLinesMax = 120;
// In so many, every kind of fault happens.
constexpr std::uint64_t kSeedsForAll = 20;

struct Sum {
  std::array<std::int64_t, kFaults> fired{};
  std::map<std::string, std::int64_t> judged;
  std::int64_t relayed = 0;
  std::int64_t appended_elsewhere = 0;
  int failed = 0;
};

// "m12" of "G3: m12 is delivered ..."; empty: it is not about a message.
std::string MessageIn(const std::string& violation) {
  for (std::size_t at = violation.find(" m"); at != std::string::npos; at = violation.find(" m", at + 1)) {
    const std::size_t end = violation.find_first_not_of("0123456789", at + 2);
    if (end != at + 2) return violation.substr(at + 1, end == std::string::npos ? end : end - at - 1);
  }
  return "";
}

bool IsAbout(const std::string& line, const std::string& message) {
  for (std::size_t at = line.find(message); at != std::string::npos; at = line.find(message, at + 1)) {
    const std::size_t end = at + message.size();
    if (end == line.size() || std::strchr("0123456789", line[end]) == nullptr) return true;
  }
  return false;
}

bool IsFault(const std::string& line) {
  return line.find("fault: ") != std::string::npos || line.find("the owner of ") != std::string::npos;
}

struct Arguments {
  std::uint64_t seeds = 1;
  std::uint64_t first = 0;
  std::uint64_t step = 1;
  std::string report;
  std::string traces = ".";
  const World* world = &Worlds().front();
  bool prints_digests = false;
};

// What was done with the message in question, and what broke meanwhile.
void PrintTrace(std::uint64_t seed, const World& world, const std::string& folder) {
  SimulationOptions options = world.options;
  options.traces = true;
  const SimulationResult result = Simulate(seed, options);
  const std::string message = result.violations.empty() ? "" : MessageIn(result.violations.front());
  const std::string path = folder + "/postkeeper_sim-" + std::to_string(seed) + ".trace";
  if (std::FILE* file = std::fopen(path.c_str(), "w")) {
    for (const std::string& line : result.trace) std::fprintf(file, "%s\n", line.c_str());
    std::fclose(file);
    std::printf("seed %llu: the whole trace is in %s\n", static_cast<unsigned long long>(seed), path.c_str());
  }
  std::vector<const std::string*> lines;
  for (const std::string& line : result.trace) {
    if (message.empty() ? IsFault(line) : IsAbout(line, message)) lines.push_back(&line);
  }
  const std::size_t from = lines.size() > kTraceLinesMax ? lines.size() - kTraceLinesMax : 0;
  for (std::size_t i = from; i < lines.size(); ++i) std::printf("    %s\n", lines[i]->c_str());
}

void RunSeed(std::uint64_t seed, const Arguments& arguments, Sum& sum) {
  const SimulationResult result = Simulate(seed, arguments.world->options);
  if (arguments.prints_digests) {
    std::printf("seed %llu digest %016llx\n", static_cast<unsigned long long>(seed),
                static_cast<unsigned long long>(result.digest));
  }
  for (std::size_t i = 0; i < kFaults; ++i) sum.fired[i] += result.fired[i];
  for (const auto& [promise, cases] : result.judged) sum.judged[promise] += cases;
  sum.relayed += result.relayed;
  sum.appended_elsewhere += result.appended_elsewhere;
  if (result.violations.empty()) return;
  ++sum.failed;
  std::printf("seed %llu FAILED\n", static_cast<unsigned long long>(seed));
  for (std::size_t i = 0; i < result.violations.size() && i < 10; ++i)
    std::printf("  %s\n", result.violations[i].c_str());
  PrintTrace(seed, *arguments.world, arguments.traces);
  std::fflush(stdout);
}

bool IsComplete(const Sum& sum) {
  bool is_complete = sum.relayed > 0;
  if (!is_complete) std::printf("no call was relayed\n");
  if (sum.appended_elsewhere == 0) {
    is_complete = false;
    std::printf("no replica appended to a log of another one\n");
  }
  for (std::size_t i = 0; i < kFaults; ++i) {
    if (sum.fired[i] > 0) continue;
    is_complete = false;
    std::printf("this never happened: %s\n", std::string(FaultName(static_cast<Fault>(i))).c_str());
  }
  for (const auto& [promise, cases] : sum.judged) {
    if (cases > 0) continue;
    is_complete = false;
    std::printf("the checker of %s had nothing to judge\n", promise.c_str());
  }
  return is_complete;
}

void PrintSum(const Sum& sum) {
  std::printf("faults:");
  for (std::size_t i = 0; i < kFaults; ++i) {
    std::printf("%s %lld x %s", i == 0 ? "" : ",", static_cast<long long>(sum.fired[i]),
                std::string(FaultName(static_cast<Fault>(i))).c_str());
  }
  std::printf("\njudged:");
  for (const auto& [promise, cases] : sum.judged)
    std::printf(" %s %lld", promise.c_str(), static_cast<long long>(cases));
  std::printf("; %lld calls relayed, %lld appends to another replica's log\n", static_cast<long long>(sum.relayed),
              static_cast<long long>(sum.appended_elsewhere));
}

bool Parse(int argc, char** argv, Arguments& arguments) {
  std::optional<std::uint64_t> first;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const bool has_value = i + 1 < argc;
    if (argument == "--seeds" && has_value) {
      arguments.seeds = std::strtoull(argv[++i], nullptr, 10);
    } else if (argument == "--step" && has_value) {
      arguments.step = std::strtoull(argv[++i], nullptr, 10);
    } else if (argument == "--report" && has_value) {
      arguments.report = argv[++i];
    } else if (argument == "--traces" && has_value) {
      arguments.traces = argv[++i];
    } else if (argument == "--world" && has_value) {
      arguments.world = FindWorld(argv[++i]);
      if (arguments.world == nullptr) return false;
    } else if (argument == "--bug" && has_value) {
      SetMutationForTest(static_cast<Mutation>(std::atoi(argv[++i])));
    } else if (argument == "--digests") {
      arguments.prints_digests = true;
    } else if (!argument.empty() && argument.find_first_not_of("0123456789") == std::string::npos) {
      first = std::strtoull(argv[i], nullptr, 10);
    } else {
      return false;
    }
  }
  arguments.first = first ? *first : std::random_device()();
  return true;
}

// Read by scripts/count_tests.py.
void WriteReport(const std::string& path, std::uint64_t seeds, int failed) {
  std::FILE* file = std::fopen(path.c_str(), "w");
  if (file == nullptr) return;
  std::fprintf(file, "{\"tests\": %llu, \"failures\": %d}\n", static_cast<unsigned long long>(seeds), failed);
  std::fclose(file);
}

int Main(int argc, char** argv) {
  ConfigureLogging(LogLevel::kError, LogFormat::kText);
  Arguments arguments;
  if (!Parse(argc, argv, arguments)) {
    std::fprintf(stderr,
                 "usage: postkeeper_sim [--seeds N] [--step N] [--world NAME] [--bug N] [--report FILE] [--traces "
                 "FOLDER] [--digests] [SEED]\n");
    return 2;
  }
  const auto first = static_cast<unsigned long long>(arguments.first);
  const auto seeds = static_cast<unsigned long long>(arguments.seeds);
  std::printf("seeds from %llu on\n", first);
  std::fflush(stdout);
  Sum sum;
  const auto began = std::chrono::steady_clock::now();
  for (std::uint64_t i = 0; i < arguments.seeds; ++i) {
    RunSeed(arguments.first + i * arguments.step, arguments, sum);
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
  PrintSum(sum);
  const bool is_whole = arguments.world == &Worlds().front() && arguments.seeds >= kSeedsForAll;
  const bool is_complete = !is_whole || IsComplete(sum);
  std::printf("%llu seeds from %llu on in %.0f s: %d failed\n", seeds, first, took.count(), sum.failed);
  if (!arguments.report.empty()) WriteReport(arguments.report, arguments.seeds, sum.failed);
  return sum.failed == 0 && is_complete ? 0 : 1;
}

}  // namespace
}  // namespace postkeeper

int main(int argc, char** argv) { return postkeeper::Main(argc, argv); }
