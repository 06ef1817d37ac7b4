// What the gRPC services share.
#ifndef POSTKEEPER_SERVICE_DESK_H_
#define POSTKEEPER_SERVICE_DESK_H_

#include <atomic>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "service/call_gate.h"
#include "service/call_metrics.h"
#include "service/validate.h"
#include "zkstore/environment.h"
#include "zkstore/errors.h"

namespace postkeeper {

class Broker;
class Peers;

// One per process; outlives the gRPC server. The port is opened before there is a store, so that liveness can be told:
// until SetBroker, calls are answered with ZOOKEEPER_UNAVAILABLE. Thread-safe.
class Desk {
 public:
  Desk(Environment& env, const CallGate::Options& gate_options, Metrics& all_metrics, RequestLimits request_limits,
       std::string replica_name);
  ~Desk();

  // The broker must outlive all calls.
  void SetBroker(Broker* broker) { broker_ = broker; }
  // Null until there is one.
  Broker* broker() const { return broker_; }
  absl::StatusOr<Broker*> BrokerOrError() const {
    if (Broker* broker = broker_) return broker;
    return MakeError(Reason::kZookeeperUnavailable, "this replica is starting and has no session with ZooKeeper yet");
  }

  Environment& environment;
  Metrics& metrics;
  const RequestLimits limits;
  const std::string replica;  // as EncodeProcessId gives it
  CallGate gate;
  const CallMetrics methods;
  const std::unique_ptr<Peers> peers;

 private:
  std::atomic<Broker*> broker_ = nullptr;
};

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_DESK_H_
