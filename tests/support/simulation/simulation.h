// A whole cluster from one seed, in one thread on virtual time.
#ifndef POSTKEEPER_TESTS_SUPPORT_SIMULATION_SIMULATION_H_
#define POSTKEEPER_TESTS_SUPPORT_SIMULATION_SIMULATION_H_

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "tests/support/simulation/options.h"
#include "tests/support/simulation/trouble.h"

namespace postkeeper {

// What one seed has shown.
struct SimulationResult {
  // In the order in which they happened, each beginning with the promise that does not hold. Empty: all is well.
  std::vector<std::string> violations;
  std::array<std::int64_t, kFaults> fired{};   // faults of each kind
  std::map<std::string, std::int64_t> judged;  // cases, by promise
  std::int64_t relayed = 0;                    // calls, from one replica to another
  std::int64_t appended_elsewhere = 0;         // by replicas that did not own the log
  std::uint64_t digest = 0;                    // the same for the same seed and program
  std::vector<std::string> trace;              // if options.traces
};

// How it works. Clients (clients.h) send their operations to replicas (cluster.h) while faults happen (trouble.h); then
// all is well for a minute, in which everything must be worked off; then the checkers (checkers.h) judge what was
// recorded (history.h). A failed EXPECT in what the world is made of counts as a violation, too.
SimulationResult Simulate(std::uint64_t seed, const SimulationOptions& options = {});

}  // namespace postkeeper

#endif  // POSTKEEPER_TESTS_SUPPORT_SIMULATION_SIMULATION_H_
