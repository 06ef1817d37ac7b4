// A leg of a Consume stream between two simulated replicas.
#ifndef POSTKEEPER_TESTS_SUPPORT_SIMULATION_SIMULATED_LEG_H_
#define POSTKEEPER_TESTS_SUPPORT_SIMULATION_SIMULATED_LEG_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "service/consume_session.h"
#include "tests/support/simulation/cluster.h"

namespace postkeeper {

// What PeerLeg and the reactor at the owner are in postkeeperd: frames travel in order, each on the simulated network,
// until a link breaks or one of the two processes ends.
class SimulatedLeg final : public ConsumeLeg, public std::enable_shared_from_this<SimulatedLeg> {
 public:
  // What happens at the owner, for the history.
  struct Witness {
    std::function<void(ProcessPtr, std::shared_ptr<QueueEngine>)> on_opened;
    std::function<void(ProcessPtr, std::shared_ptr<QueueEngine>, const LegDeliveries&)> on_deliveries;
    std::function<void(ProcessPtr, std::shared_ptr<QueueEngine>, std::int64_t, const std::vector<SettleFailure>&)>
        on_settled;
  };

  // At `process`, on the strand of its engine.
  static std::shared_ptr<SimulatedLeg> Start(Cluster& cluster, ProcessPtr process, asio::any_io_executor strand,
                                             Name name, std::string owner, LegOpening opening, Listener listener,
                                             Witness witness);

  void Settle(std::int64_t sequence, const SettleOrders& orders) override;
  void AddCredit(const CheckedCredit& credit) override;
  void Stop() override;
  void AskCounts() override {}
  void Release() override;
  void Close() override;

 private:
  SimulatedLeg(Cluster& cluster, ProcessPtr process, asio::any_io_executor strand, Listener listener, Witness witness)
      : cluster_(cluster),
        process_(std::move(process)),
        strand_(std::move(strand)),
        listener_(std::move(listener)),
        witness_(std::move(witness)) {}

  Task<void> Run(std::shared_ptr<SimulatedLeg> self, Name name, std::string owner, LegOpening opening);
  Task<Cluster::StreamEnd> ServeAtOwner(std::shared_ptr<SimulatedLeg> self, std::shared_ptr<QueueEngine> engine,
                                        ProcessPtr owner, LegOpening opening);
  ConsumeSession::Client ClientAtOwner(ProcessPtr owner, std::shared_ptr<QueueEngine> engine,
                                       std::function<void(absl::Status)> on_end);
  // To the session at the owner, and back to the listener.
  void SendThere(std::function<void(ConsumeSession&)> act);
  void SendBack(std::function<void(SimulatedLeg&)> act);
  void SendFrame(CheckedFrame frame);
  void LeaveThere();

  Cluster& cluster_;
  const ProcessPtr process_;
  const asio::any_io_executor strand_;
  const Listener listener_;
  const Witness witness_;
  bool is_closed_ = false;
  // At the owner.
  std::shared_ptr<ConsumeSession> session_;
  std::optional<asio::any_io_executor> strand_there_;
  bool is_left_ = false;
  Instant last_there_{};
  Instant last_back_{};
};

}  // namespace postkeeper

#endif  // POSTKEEPER_TESTS_SUPPORT_SIMULATION_SIMULATED_LEG_H_
