// externalscaler.ExternalScaler: tells KEDA how many workers a queue wants.
#ifndef POSTKEEPER_SERVICE_SCALER_SERVICE_H_
#define POSTKEEPER_SERVICE_SCALER_SERVICE_H_

#include <memory>

#include "service/desk.h"

namespace grpc {
class Service;
}

namespace postkeeper {

// Any replica answers; for a queue that another one works for, that one. The desk must outlive the service.
std::unique_ptr<grpc::Service> MakeScalerService(Desk& desk);

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_SCALER_SERVICE_H_
