// postkeeper.v1.ClusterService.
#ifndef POSTKEEPER_SERVICE_CLUSTER_SERVICE_H_
#define POSTKEEPER_SERVICE_CLUSTER_SERVICE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "service/desk.h"

namespace grpc {
class Service;
}

namespace postkeeper {

// What GetServerInfo says.
struct ServerInfo {
  std::string version;
  // The name of each limit ends with its unit.
  std::map<std::string, std::int64_t> limits;
};

// The desk must outlive the service.
std::unique_ptr<grpc::Service> MakeClusterService(Desk& desk, ServerInfo info);

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_CLUSTER_SERVICE_H_
