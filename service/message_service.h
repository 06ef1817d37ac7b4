// postkeeper.v1.MessageService.
#ifndef POSTKEEPER_SERVICE_MESSAGE_SERVICE_H_
#define POSTKEEPER_SERVICE_MESSAGE_SERVICE_H_

#include <memory>

#include "service/desk.h"

namespace grpc {
class Service;
}

namespace postkeeper {

// The desk must outlive the service.
std::unique_ptr<grpc::Service> MakeMessageService(Desk& desk);

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_MESSAGE_SERVICE_H_
