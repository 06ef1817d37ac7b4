// Precompiled for the files of this room that talk to the service.
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "postkeeper/v1/admin.grpc.pb.h"
#include "postkeeper/v1/cluster.grpc.pb.h"
#include "postkeeper/v1/message.grpc.pb.h"
