#include "tests/support/simulation/options.h"

#include <algorithm>

namespace postkeeper {
namespace {

SimulationOptions OneLog(int queues, int topics) {
  SimulationOptions options;
  options.replicas = 2;
  options.queues = queues;
  options.topics = topics;
  options.producers = 2;
  options.pollers = 1;
  options.operations = 300;
  options.fault_pause_max = std::chrono::milliseconds(1500);
  return options;
}

}  // namespace

const std::vector<World>& Worlds() {
  static const std::vector<World>& worlds =
      *new std::vector<World>{{"cluster", {}}, {"queue", OneLog(1, 0)}, {"topic", OneLog(0, 1)}};
  return worlds;
}

const World* FindWorld(std::string_view name) {
  const auto found =
      std::find_if(Worlds().begin(), Worlds().end(), [&](const World& world) { return world.name == name; });
  return found == Worlds().end() ? nullptr : &*found;
}

}  // namespace postkeeper
