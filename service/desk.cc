#include "service/desk.h"

#include <utility>

#include "service/peers.h"

namespace postkeeper {

Desk::Desk(Environment& env, const CallGate::Options& gate_options, Metrics& all_metrics, RequestLimits request_limits,
           std::string replica_name)
    : environment(env),
      metrics(all_metrics),
      limits(request_limits),
      replica(std::move(replica_name)),
      gate(env, gate_options),
      methods(metrics,
              {kMessageServiceName, kAdminServiceName, kClusterServiceName, kHealthServiceName, kScalerServiceName}),
      peers(std::make_unique<Peers>()) {}

Desk::~Desk() = default;

}  // namespace postkeeper
