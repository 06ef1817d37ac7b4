// How large a simulated run is.
#ifndef POSTKEEPER_TESTS_SUPPORT_SIMULATION_OPTIONS_H_
#define POSTKEEPER_TESTS_SUPPORT_SIMULATION_OPTIONS_H_

#include <string_view>
#include <vector>

#include "zkstore/environment.h"

namespace postkeeper {

struct SimulationOptions {
  int replicas = 3;  // at the start; up to Cluster::kSlots join
  int queues = 3;
  int topics = 2;
  int producers = 4;
  int pollers = 3;  // beside them: a stream for each queue, and two subscribers and more for each topic
  int operations = 2000;
  int faults_min = 5;
  Duration fault_pause_max = std::chrono::seconds(4);  // between two
  Duration calm = std::chrono::seconds(60);            // in which everything must be delivered
  bool traces = false;
};

struct World {
  std::string_view name;
  SimulationOptions options;
};
// "cluster", which is what is promised; "queue" and "topic", where two replicas have one log, and all clients and
// faults meet there.
const std::vector<World>& Worlds();
// Null: there is none of this name.
const World* FindWorld(std::string_view name);

}  // namespace postkeeper

#endif  // POSTKEEPER_TESTS_SUPPORT_SIMULATION_OPTIONS_H_
