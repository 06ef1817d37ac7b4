// The benchmark itself: every workload beside its ceilings, round after round.
#ifndef POSTKEEPER_BENCH_ROUNDS_H_
#define POSTKEEPER_BENCH_ROUNDS_H_

#include <set>
#include <string>

#include "absl/status/statusor.h"
#include "bench/delivery_load.h"
#include "bench/measure.h"
#include "bench/results.h"

namespace postkeeper::bench {

struct RoundsOptions {
  std::string address;          // of postkeeperd
  std::string metrics_address;  // of its metrics page; "" = not read
  std::string zookeeper;        // the same ZooKeeper; "" = no ceilings
  Processes processes;          // besides this one
  Window window;
  int rounds = 3;
  std::set<std::string> workloads;  // of kWorkloads
  DeliveryShape shape;
  int unary_in_flight = 64;
  int appends_in_flight = 4;  // as postkeeperd is configured
};

// In each round every workload runs, and directly behind it each of its ceilings, so that both see the same machine.
// Each measurement has a queue or topic of its own. Ceilings need `zookeeper` and `metrics_address`: the sizes of the
// batches that the workload made are read there, and the ceiling writes such batches.
absl::StatusOr<Results> RunRounds(const RoundsOptions& options);

}  // namespace postkeeper::bench

#endif  // POSTKEEPER_BENCH_ROUNDS_H_
