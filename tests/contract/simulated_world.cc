// The contract suite's simulated world.
#include "tests/contract/world.h"
#include "zkstore/simulated_client.h"
#include "zkstore/simulated_environment.h"
#include "zkstore/simulator.h"

namespace postkeeper::zk {
namespace {

constexpr Duration kPatience = std::chrono::minutes(5);

SimulatedClient& Simulated(Client& client) { return static_cast<SimulatedClient&>(client); }

class SimulatedWorld : public World {
 public:
  explicit SimulatedWorld(std::uint64_t seed) : environment_(seed), ensemble_(environment_) {}

  std::unique_ptr<Client> MakeClient(WorldClientOptions options) override {
    auto client = std::make_unique<SimulatedClient>(ensemble_,
                                                    SimulatedClientOptions{.session_timeout = options.session_timeout});
    client->SetChecksRequestSize(options.checks_request_size);
    return client;
  }

  void Record(const std::function<void()>& change) override { change(); }

  bool WaitUntil(const std::function<bool()>& predicate) override {
    return environment_.RunUntil(predicate, kPatience);
  }

  void Disconnect(Client& client) override { Simulated(client).Disconnect(); }

  void CutOff(Client& client) override {
    Simulated(client).SetConnectable(false);
    Simulated(client).Disconnect();
  }

  void Reconnect(Client& client) override { Simulated(client).SetConnectable(true); }

  void Expire(Client& client) override { ensemble_.ExpireSession(client.session().session_id); }

 private:
  SimulatedEnvironment environment_;
  SimulatedEnsemble ensemble_;
};

}  // namespace

std::unique_ptr<World> MakeSimulatedWorld(std::uint64_t seed) { return std::make_unique<SimulatedWorld>(seed); }

}  // namespace postkeeper::zk
