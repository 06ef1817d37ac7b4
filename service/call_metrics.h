// The gRPC ecosystem's standard metrics for each method that is served.
#ifndef POSTKEEPER_SERVICE_CALL_METRICS_H_
#define POSTKEEPER_SERVICE_CALL_METRICS_H_

#include <string>
#include <string_view>

#include "absl/container/flat_hash_map.h"
#include "metrics/metrics.h"
#include "zkstore/text.h"

namespace postkeeper {

// Finds all methods of the services in their descriptors, so that each stands at 0 from the start. Immutable after
// construction; thread-safe.
class CallMetrics {
 public:
  // The methods of one service, by name.
  class Service {
   public:
    // `method` must be one of the service's.
    MethodMetrics& operator[](std::string_view method) const { return *methods_.at(AbslView(method)); }

   private:
    friend class CallMetrics;
    absl::flat_hash_map<std::string, MethodMetrics*> methods_;
  };

  // `services` are full names: postkeeper.v1.MessageService. Each must be linked into the program.
  CallMetrics(Metrics& metrics, std::initializer_list<std::string_view> services);

  const Service& Of(std::string_view service) const { return services_.at(AbslView(service)); }

 private:
  absl::flat_hash_map<std::string, Service> services_;
};

inline constexpr std::string_view kMessageServiceName = "postkeeper.v1.MessageService";
inline constexpr std::string_view kAdminServiceName = "postkeeper.v1.AdminService";
inline constexpr std::string_view kClusterServiceName = "postkeeper.v1.ClusterService";
inline constexpr std::string_view kHealthServiceName = "grpc.health.v1.Health";
inline constexpr std::string_view kScalerServiceName = "externalscaler.ExternalScaler";

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_CALL_METRICS_H_
