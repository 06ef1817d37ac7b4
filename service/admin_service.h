// postkeeper.v1.AdminService.
#ifndef POSTKEEPER_SERVICE_ADMIN_SERVICE_H_
#define POSTKEEPER_SERVICE_ADMIN_SERVICE_H_

#include <memory>

#include "service/desk.h"

namespace grpc {
class Service;
}

namespace postkeeper {

// The desk must outlive the service.
std::unique_ptr<grpc::Service> MakeAdminService(Desk& desk);

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_ADMIN_SERVICE_H_
